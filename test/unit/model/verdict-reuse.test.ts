import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseCidr } from '../../../src/base/ip.ts';
import { inboundVerdict } from '../../../src/model/inbound-verdict.ts';
import { outboundDecision } from '../../../src/model/outbound-verdict.ts';
import type { InboundQuestion, OutboundQuestion } from '../../../src/model/verdict.ts';
import { inboundFor, inboundKey, outboundFor, outboundKey } from '../../../src/model/verdict-reuse.ts';
import { always, memberOf, mesh, policy, SETTINGS, service, vip, workload } from './sample-mesh.ts';

function cidr(text: string) {
  return parseCidr(text) ?? assert.fail(text);
}

const CLIENT = workload('client', { ips: ['10.0.0.1'], node: 'node-2' });
const OTHER = workload('other', { ips: ['10.0.0.3'], node: 'node-2' });
const SERVER = workload('server', {
  ips: ['10.0.0.2'],
  services: memberOf({ web: { 80: 8_080 }, api: { 80: 8_080 } }),
  applicationTunnel: { protocol: 'PROXY' },
});
const PLAIN = workload('plain', { ips: ['10.0.0.4'], protocol: 'TCP' });
const CLIENT_ID = 'spiffe://cluster.local/ns/default/sa/client';
const INDEX = mesh({
  workloads: [CLIENT, OTHER, SERVER, PLAIN],
  services: [service('web', { vips: [vip('10.1.0.1')] }), service('api')],
  policies: [
    policy('no-outsiders', { action: 'Deny', rules: [[[{ sourceIps: [cidr('10.9.0.0/16')] }]]] }),
    policy('no-strangers', {
      action: 'Deny',
      rules: [[[{ principals: [{ kind: 'suffix', value: '/sa/other' }], destinationPorts: [8_080] }]]],
    }),
  ],
});

const ports = fc.integer({ min: 1, max: 65_535 });
const clients = fc.record({ ip: fc.constantFrom('10.0.0.1', '10.0.0.3', '10.9.9.9'), port: ports });

const outboundQuestions: fc.Arbitrary<OutboundQuestion> = fc.record({
  podUid: fc.constantFrom('p1', 'p2'),
  client: clients,
  target: fc.record({
    ip: fc.constantFrom('10.1.0.1', '10.0.0.2', '10.0.0.4', '10.8.8.8', '127.0.0.1'),
    port: fc.constantFrom(80, 81, 15_008),
  }),
});

const forwardedHeaders = fc.oneof(
  fc.constant(undefined),
  fc
    .tuple(
      ports,
      fc.constantFrom('', ';host=web.default.svc.cluster.local', ';host=api.default.svc.cluster.local', ';host=nobody'),
    )
    .map(([port, host]) => `for="10.0.0.1:${port}"${host}`),
);

const inboundQuestions: fc.Arbitrary<InboundQuestion> = fc
  .record({
    podUid: fc.constantFrom('p1', 'p2'),
    connectionId: fc.string(),
    peer: clients,
    local: fc.record({ ip: fc.constantFrom('10.0.0.2', '10.0.0.5'), port: fc.constantFrom(15_008, 8_080) }),
    isHbone: fc.boolean(),
    peerIdentity: fc.constantFrom(undefined, CLIENT_ID, 'spiffe://cluster.local/ns/default/sa/other'),
    authority: fc.constantFrom('10.0.0.2:8080', '10.0.0.2:9', 'web.default.svc.cluster.local:80', 'rubbish'),
    forwarded: forwardedHeaders,
    baggage: fc.constantFrom(undefined, ['k8s.namespace.name=demo'], ['service.name=x']),
    forwardedNetwork: fc.constantFrom(undefined, 'far'),
  })
  .map(({ isHbone, podUid, connectionId, peer, local, ...hbone }) => {
    const present = Object.fromEntries(Object.entries(hbone).filter(([, value]) => value !== undefined));
    const question = { podUid, connectionId, peer, local };
    return isHbone ? { ...question, hbone: { authority: '', ...present } } : question;
  });

function outbound(question: OutboundQuestion) {
  const source = question.podUid === 'p1' ? CLIENT : OTHER;
  const decision = outboundDecision(INDEX, source, question, { settings: SETTINGS, random: always(0.5) });
  return decision.kind === 'verdict' ? decision.verdict : assert.fail('no workload here is known by name alone');
}

function inbound(question: InboundQuestion) {
  return inboundVerdict(INDEX, question.podUid === 'p1' ? SERVER : PLAIN, question, SETTINGS).verdict;
}

/** As it goes through a port. */
function plain(verdict: unknown): unknown {
  return JSON.parse(JSON.stringify(verdict));
}

/** So that some pairs differ in little. */
function withField<Question extends object>(question: Question, other: Question, field: string): Question {
  return { ...question, ...Object.fromEntries(Object.entries(other).filter(([name]) => name === field)) };
}

test('an outbound verdict holds for every question with its key, once it is made for its client', () => {
  const fields = fc.constantFrom('podUid', 'client', 'target');
  fc.assert(
    fc.property(outboundQuestions, outboundQuestions, fields, (first, other, field) => {
      const second = withField(first, other, field);
      fc.pre(outboundKey(first) === outboundKey(second));
      assert.deepEqual(plain(outboundFor(outbound(first), second)), plain(outbound(second)));
    }),
    { numRuns: 2_000 },
  );
});

test('an inbound verdict holds for every question with its key, once it is made for its client', () => {
  const fields = fc.constantFrom('podUid', 'connectionId', 'peer', 'local', 'hbone');
  const requestFields = fc.constantFrom('peerIdentity', 'authority', 'forwarded', 'baggage', 'forwardedNetwork');
  fc.assert(
    fc.property(inboundQuestions, inboundQuestions, fields, requestFields, (first, other, field, requestField) => {
      const isPart = first.hbone !== undefined && other.hbone !== undefined && field === 'hbone';
      const second = isPart
        ? { ...first, hbone: withField(first.hbone, other.hbone, requestField) }
        : withField(first, other, field);
      fc.pre(inboundKey(first) === inboundKey(second));
      assert.deepEqual(plain(inboundFor(inbound(first), second)), plain(inbound(second)));
    }),
    { numRuns: 5_000 },
  );
});

test('another port of the client and another connection have the same key', () => {
  const peer = { ip: '10.0.0.1', port: 1 };
  const question: InboundQuestion = {
    podUid: 'p1',
    connectionId: 'a',
    peer,
    local: { ip: '10.0.0.2', port: 15_008 },
    hbone: { authority: '10.0.0.2:8080', forwarded: 'for="10.0.0.1:1";host=web' },
  };
  const again = {
    ...question,
    connectionId: 'b',
    peer: { ...peer, port: 2 },
    hbone: { authority: '10.0.0.2:8080', forwarded: 'for="10.0.0.1:2";host=web' },
  };
  assert.equal(inboundKey(again), inboundKey(question));
  const dialled = { podUid: 'p1', client: peer, target: { ip: '10.1.0.1', port: 80 } };
  assert.equal(outboundKey({ ...dialled, client: { ...peer, port: 2 } }), outboundKey(dialled));
});
