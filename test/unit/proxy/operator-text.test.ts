import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ErrorFields, MeshError } from '../../../src/base/errors.ts';
import type { ReasonCode } from '../../../src/base/reasons.ts';
import { refusalOf } from '../../../src/proxy/operator-text.ts';

const HINT = 'connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed';
const refused = { errno: 'ECONNREFUSED', address: '10.0.0.2:8080' };

const texts: readonly (readonly [ReasonCode, string, ErrorFields, string])[] = [
  ['CV-TUNNEL-TIMEOUT', 'TCP connect got no answer in time', { address: '10.0.0.2:15008' }, HINT],
  ['CV-APP-TIMEOUT', 'TCP connect got no answer in time', {}, 'connection failed: deadline has elapsed'],
  ['CV-APP-REFUSED', 'TCP connect failed', refused, 'connection failed: ECONNREFUSED (10.0.0.2:8080)'],
  ['CV-TUNNEL-REFUSED', 'TCP connect failed', refused, 'connection failed: ECONNREFUSED (10.0.0.2:8080)'],
  [
    'CV-TUNNEL-HTTP2',
    'the connection was closed',
    { isHandshake: true },
    'http2 handshake failed: the connection was closed',
  ],
  ['CV-TUNNEL-HTTP2', 'HTTP/2: DATA after END_STREAM', {}, 'h2 failed: HTTP/2: DATA after END_STREAM'],
  ['CV-TUNNEL-CLOSED', 'the connection was closed', {}, 'h2 failed: the connection was closed'],
  ['CV-TUNNEL-DEAD', 'the peer did not answer a PING', {}, 'h2 failed: the peer did not answer a PING'],
  ['CV-CONNECT-DENIED', 'http status: 401 Unauthorized', {}, 'http status: 401 Unauthorized'],
];

for (const [code, message, fields, text] of texts) {
  test(`${code} reads "${text}"`, () => {
    assert.deepEqual(refusalOf(new MeshError(code, message, fields)), { code, text });
  });
}
