import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatRpcAddress, parseRpcAddress, type RpcAddress } from '../../../src/rpc/address.ts';

const tls = (host: string, port: number): RpcAddress => ({ kind: 'tls', host, port });

const good: readonly (readonly [text: string, address: RpcAddress])[] = [
  ['https://istiod.istio-system.svc:15012', tls('istiod.istio-system.svc', 15_012)],
  ['istiod.istio-system.svc:15012', tls('istiod.istio-system.svc', 15_012)],
  ['HTTPS://istiod:15012/', tls('istiod', 15_012)],
  ['https://istiod', tls('istiod', 443)],
  ['10.0.0.1:15012', tls('10.0.0.1', 15_012)],
  ['https://[FD00::0:1]:15012', tls('fd00::1', 15_012)],
  ['unix:///run/spire/agent.sock', { kind: 'unix', path: '/run/spire/agent.sock' }],
  ['unix:/run/spire/agent.sock', { kind: 'unix', path: '/run/spire/agent.sock' }],
];

for (const [text, address] of good) {
  test(`"${text}" is read, and its own text is read back`, () => {
    assert.deepEqual(parseRpcAddress(text), { ok: true, address });
    assert.deepEqual(parseRpcAddress(formatRpcAddress(address)), { ok: true, address });
  });
}

const bad = [
  'http://istiod:15010',
  'grpc://istiod:15010',
  '',
  'https://',
  ':15012',
  'istiod:0',
  'istiod:65536',
  'istiod:15012/path',
  'user@istiod:15012',
  'fd00::1',
  '[10.0.0.1]:15012',
  '1.2.3:15012',
  'istiod:15012:1',
  'unix://relative/path',
  `unix:///${'a'.repeat(200)}`,
];

for (const text of bad) {
  test(`"${text.slice(0, 40)}" is refused with a text that says what to write`, () => {
    const result = parseRpcAddress(text);
    assert(!result.ok);
    assert.match(result.problem, /; write (https|unix):\/\//);
  });
}

test('any text is read or refused, never thrown at, and what is read keeps its meaning', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.webUrl(),
        fc.ipV6().map((ip) => `[${ip}]:1`),
      ),
      (text) => {
        const result = parseRpcAddress(text);
        if (result.ok) assert.deepEqual(parseRpcAddress(formatRpcAddress(result.address)), result);
      },
    ),
  );
});
