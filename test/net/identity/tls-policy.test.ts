/** What `TLS12_ENABLED` and `COMPLIANCE_POLICY=pqc` let in and keep out, with OpenSSL 3.0 as the peer nobody here wrote. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import type { ReasonCode } from '../../../src/base/reasons.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { type AcceptedTls, acceptTls, connectTls } from '../../../src/identity/tls-handshake.ts';
import { DEFAULT_TLS_POLICY, requireTlsPolicy, type TlsPolicy } from '../../../src/identity/tls-policy.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { meshCa } from '../../support/certs.ts';
import { openssl } from '../../support/openssl.ts';
import { tcpPair } from '../../support/tcp.ts';

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const TLS12: TlsPolicy = { ...DEFAULT_TLS_POLICY, isTls12Allowed: true };
const PQC: TlsPolicy = { ...DEFAULT_TLS_POLICY, isPostQuantumOnly: true };
const PQC_AND_TLS12: TlsPolicy = { isTls12Allowed: true, isPostQuantumOnly: true };

const ca = await meshCa();
const cart = await ca.material(CART);
const web = await ca.material(WEB);
const withPolicy = (policy: TlsPolicy) => ({ contexts: new TlsContexts(policy), clock: systemClock });

const CLIENT = ['-noservername', '-CAfile', 'roots.pem', '-verify_return_error', '-alpn', 'h2'];
const CERTIFICATE = ['-cert', 'cert.pem', '-key', 'key.pem', '-cert_chain', 'chain.pem'];

/** One connection of `openssl s_client` with `args` to a server of ours. */
async function opensslClient(
  policy: TlsPolicy,
  args: readonly string[],
  certificate: readonly string[] = CERTIFICATE,
): Promise<{ readonly outcome: PromiseSettledResult<AcceptedTls>; readonly output: string }> {
  const accepted = Promise.withResolvers<AcceptedTls>();
  await using undo = new AsyncDisposableStack();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    acceptTls(socket, cart, withPolicy(policy)).then(accepted.resolve, accepted.reject);
  });
  undo.defer(() => void server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as net.AddressInfo;
  const peer = openssl('s_client', ['-connect', `127.0.0.1:${port}`, ...CLIENT, ...certificate, ...args], web);
  undo.use(peer);
  void peer.ended.then((output) => accepted.reject(new Error(`openssl never connected:\n${output}`)));
  const [outcome] = await Promise.allSettled([accepted.promise]);
  if (outcome.status === 'rejected') return { outcome, output: await peer.ended };
  // OpenSSL prints its report a moment after the handshake.
  const output = await peer.seen(/Verify return code/);
  outcome.value.socket.destroy();
  return { outcome, output };
}

function assertRefused(outcome: PromiseSettledResult<AcceptedTls>, code: ReasonCode, output: string): void {
  assert(outcome.status === 'rejected', output);
  assert(outcome.reason instanceof MeshError, String(outcome.reason));
  assert.equal(outcome.reason.code, code, outcome.reason.message);
}

const accepted: readonly { readonly name: string; readonly args: readonly string[] }[] = [
  { name: 'TLS 1.2 and AES-256', args: ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES256-GCM-SHA384'] },
  { name: 'TLS 1.2 and AES-128', args: ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-GCM-SHA256'] },
  { name: 'TLS 1.3', args: ['-tls1_3'] },
];

for (const { name, args } of accepted) {
  test(`with TLS 1.2 enabled a client with ${name} is accepted and identified`, async () => {
    const { outcome, output } = await opensslClient(TLS12, args);
    assert(outcome.status === 'fulfilled', output);
    assert.equal(outcome.value.peerIdentity, WEB);
    assert.match(output, args.includes('-tls1_3') ? /New, TLSv1\.3/ : /New, TLSv1\.2/);
    assert.match(output, /ALPN protocol: h2/);
  });
}

const refused = [
  { name: 'TLS 1.2 enabled', policy: TLS12, what: 'CBC', args: ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-SHA256'] },
  { name: 'TLS 1.2 enabled', policy: TLS12, what: 'ChaCha20', args: ['-tls1_2', '-cipher', 'ECDHE+CHACHA20'] },
  { name: 'TLS 1.2 enabled', policy: TLS12, what: 'TLS 1.1', args: ['-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0'] },
  { name: 'the policy pqc', policy: PQC, what: 'the groups of before', args: [] },
  { name: 'the policy pqc and TLS 1.2', policy: PQC_AND_TLS12, what: 'TLS 1.2', args: ['-tls1_2'] },
] as const;

for (const { name, policy, what, args } of refused) {
  test(`with ${name} a client that has only ${what} is refused`, async () => {
    const { outcome, output } = await opensslClient(policy, args);
    assertRefused(outcome, 'CV-TLS-HANDSHAKE', output);
  });
}

test('a TLS 1.2 client without a certificate is refused', async () => {
  const { outcome, output } = await opensslClient(TLS12, ['-tls1_2'], []);
  assertRefused(outcome, 'CV-PEER-CERT', output);
});

test('with the policy pqc two agents agree on the hybrid group', async () => {
  await using pair = await tcpPair();
  const [{ peerIdentity }, client] = await Promise.all([
    acceptTls(pair.far, cart, withPolicy(PQC)),
    connectTls(pair.near, web, [CART], withPolicy(PQC)),
  ]);
  assert.equal(peerIdentity, WEB);
  assert.equal(client.getProtocol(), 'TLSv1.3');
  assert.equal((client.getEphemeralKeyInfo() as { readonly name?: string }).name, 'X25519MLKEM768');
  client.destroy();
});

test('this build of OpenSSL can do every policy', () => {
  for (const policy of [DEFAULT_TLS_POLICY, TLS12, PQC, PQC_AND_TLS12]) requireTlsPolicy(policy);
});
