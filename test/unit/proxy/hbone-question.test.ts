import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hboneQuestion } from '../../../src/proxy/hbone-question.ts';
import type { RequestHead } from '../../../src/wire/h2-head.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/client';

function request(headers: Readonly<Record<string, readonly string[]>>): RequestHead {
  return { method: 'CONNECT', headers: new Map(Object.entries(headers)) };
}

test('a question has what verdicts read: authority, identity, and three headers', () => {
  const headers = {
    forwarded: ['for="10.0.0.1:80";host=web.local'],
    baggage: ['k8s.namespace.name=a', 'service.name=b'],
    'x-forwarded-network': ['remote'],
    other: ['x'],
  };
  assert.deepEqual(hboneQuestion(request(headers), '10.0.0.2:80', IDENTITY), {
    authority: '10.0.0.2:80',
    peerIdentity: IDENTITY,
    forwarded: headers.forwarded[0],
    baggage: headers.baggage,
    forwardedNetwork: 'remote',
  });
});

test('what is not said is not there', () => {
  assert.deepEqual(hboneQuestion(request({}), '10.0.0.2:80'), { authority: '10.0.0.2:80' });
});

test('what nobody would read does not go with it', () => {
  const headers = {
    forwarded: ['f'.repeat(1_025)],
    baggage: Array.from({ length: 15 }, () => 'service.name=b'.padEnd(4_000, 'x')),
    'x-forwarded-network': ['n'.repeat(60_000)],
  };
  const question = hboneQuestion(request(headers), '10.0.0.2:80', IDENTITY);
  assert.ok(JSON.stringify(question).length < 512);
  assert.deepEqual(Object.keys(question), ['authority', 'peerIdentity', 'forwardedNetwork']);
});
