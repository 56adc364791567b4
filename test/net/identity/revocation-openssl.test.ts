import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { crlBlocks } from '../../../src/identity/crl.ts';
import { CrlFile } from '../../../src/identity/crl-file.ts';
import { certificatePems } from '../../../src/identity/pem.ts';
import { Revocation } from '../../../src/identity/revocation.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { type AcceptedTls, acceptTls } from '../../../src/identity/tls-handshake.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { openssl } from '../../support/openssl.ts';
import { OpensslCa } from '../../support/openssl-ca.ts';

const ca = new OpensslCa();
after(() => ca[Symbol.dispose]());
const cart = ca.leaf('spiffe://cluster.local/ns/shop/sa/cart');
const web = ca.leaf('spiffe://cluster.local/ns/shop/sa/web');
const third = ca.leaf('spiffe://cluster.local/ns/shop/sa/third');
const empty = ca.list('issuing', []);
const withWeb = ca.list('issuing', [web.file]);
const withIssuing = ca.list('root', ['issuing.pem']);

/** `openssl s_client` as `client` against a server that presents `cart` and has `lists`. */
async function dial(client: TlsMaterial, lists: readonly Buffer[]): Promise<PromiseSettledResult<AcceptedTls>> {
  const revocation = new Revocation({ log: {}, onRejected: () => undefined });
  await revocation.replace(lists);
  const options = { contexts: new TlsContexts(), clock: systemClock, revocation };
  const { promise, resolve } = Promise.withResolvers<PromiseSettledResult<AcceptedTls>>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    void Promise.allSettled([acceptTls(socket, cart, options)]).then(([outcome]) => resolve(outcome));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const certificate = ['-cert', 'cert.pem', '-key', 'key.pem', '-cert_chain', 'chain.pem'];
  const trust = ['-noservername', '-CAfile', 'roots.pem', '-verify_return_error', '-alpn', 'h2'];
  await using _peer = openssl('s_client', ['-connect', `127.0.0.1:${port}`, ...certificate, ...trust], client);
  const outcome = await promise;
  if (outcome.status === 'fulfilled') outcome.value.socket.destroy();
  server.close();
  return outcome;
}

function codeOf(outcome: PromiseSettledResult<AcceptedTls>): string {
  if (outcome.status === 'fulfilled') return 'accepted';
  return outcome.reason instanceof MeshError ? outcome.reason.code : String(outcome.reason);
}

const blocks = (pem: string): readonly Buffer[] => crlBlocks(Buffer.from(pem));

for (const [claim, client, lists, want] of [
  ['a leaf that is on no list of its CA is accepted', web, blocks(empty), 'accepted'],
  ['a leaf that its CA revoked is refused', web, blocks(withWeb), 'CV-PEER-REVOKED'],
  ['another leaf of that CA is accepted', third, blocks(withWeb), 'accepted'],
  ['the same list in DER refuses it too', web, [ca.toDer(withWeb)], 'CV-PEER-REVOKED'],
  ['a leaf below a CA that the root revoked is refused', third, blocks(withIssuing), 'CV-PEER-REVOKED'],
  ['several lists in one file all count', web, blocks(empty + withIssuing + withWeb), 'CV-PEER-REVOKED'],
] as const) {
  test(`lists and peer by openssl: ${claim}`, { timeout: 90_000 }, async () => {
    assert.equal(codeOf(await dial(client, lists)), want);
  });
}

test('a list that openssl signed verifies with the key of its CA, and not with another', async (t) => {
  using other = new OpensslCa();
  const folder = mkdtempSync(join(tmpdir(), 'culvert-crl-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'ca-crl.pem');
  writeFileSync(path, withWeb + withIssuing);
  const unknown: unknown[] = [];
  for (const { chainPem, rootsPem } of [web, other.leaf(web.identity)]) {
    const known = [...certificatePems(chainPem).slice(1), ...rootsPem];
    using file = await CrlFile.open(path, {
      clock: systemClock,
      log: { info: (_, fields) => unknown.push(fields?.['unknown']) },
      knownAuthorities: () => known,
      onLists: () => undefined,
      onLoad: () => undefined,
    });
    assert.deepEqual([file.state.revoked, file.state.lastError], [2, undefined]);
  }

  // The CAs of `other` have the same names and other keys: for them both lists are of CAs nobody knows.
  assert.deepEqual(unknown, [0, 2]);
});
