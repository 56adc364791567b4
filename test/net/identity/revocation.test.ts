import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { test } from 'node:test';
import type tls from 'node:tls';
import { MeshError } from '../../../src/base/errors.ts';
import { generateKeyPair } from '../../../src/identity/keys.ts';
import { certificatePems } from '../../../src/identity/pem.ts';
import { type Reporter, Revocation } from '../../../src/identity/revocation.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { acceptTls, connectTls } from '../../../src/identity/tls-handshake.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { meshCa } from '../../support/certs.ts';
import { buildCrl, issuingOf, rootOf } from '../../support/crl.ts';
import { tcpPair } from '../../support/tcp.ts';

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const ca = await meshCa();
const cart = await ca.material(CART);
const web = await ca.material(WEB);

const serialOf = (pem: string): string => new X509Certificate(pem).serialNumber;
const leafSerial = ({ chainPem }: TlsMaterial): string => serialOf(certificatePems(chainPem)[0] ?? '');
const revoking = (...materials: readonly TlsMaterial[]): Buffer =>
  buildCrl(issuingOf(ca), { serials: materials.map(leafSerial) });

/** What one side of a handshake has for revocation, and what it did. */
class Side {
  readonly rejections: Reporter[] = [];
  readonly lines: string[] = [];
  readonly revocation = new Revocation({
    log: { warn: (message) => this.lines.push(message) },
    onRejected: (reporter) => this.rejections.push(reporter),
  });
  readonly options = { contexts: new TlsContexts(), clock: systemClock, revocation: this.revocation };
}

interface Joined extends AsyncDisposable {
  readonly server: PromiseSettledResult<tls.TLSSocket>;
  readonly client: PromiseSettledResult<tls.TLSSocket>;
}

/** A handshake between `cart` as server and `client`. */
async function handshake(side: Side, client: TlsMaterial = web, server: TlsMaterial = cart): Promise<Joined> {
  const pair = await tcpPair();
  const accepting = acceptTls(pair.far, server, side.options).then(({ socket }) => socket);
  const connecting = connectTls(pair.near, client, [server.identity], {
    contexts: new TlsContexts(),
    clock: systemClock,
  });
  const [accepted, connected] = await Promise.allSettled([accepting, connecting]);
  return { server: accepted, client: connected, [Symbol.asyncDispose]: () => pair[Symbol.asyncDispose]() };
}

function assertRevoked(outcome: PromiseSettledResult<unknown>, serial: string): void {
  assert(outcome.status === 'rejected', 'the handshake was accepted');
  assert(outcome.reason instanceof MeshError);
  assert.equal(outcome.reason.code, 'CV-PEER-REVOKED');
  assert.equal(outcome.reason.message, 'tls handshake error: peer certificate is revoked by CRL');
  assert.equal(outcome.reason.fields['serial'], serial);
}

function accepted(outcome: PromiseSettledResult<tls.TLSSocket>): tls.TLSSocket {
  if (outcome.status === 'rejected') throw outcome.reason;
  return outcome.value;
}

test('a client whose certificate is on a list is refused, another one of the same CA is not', async () => {
  const side = new Side();
  await side.revocation.replace([revoking(web)]);
  const third = await ca.material('spiffe://cluster.local/ns/shop/sa/third');
  await using refused = await handshake(side);
  await using served = await handshake(side, third);

  assertRevoked(refused.server, leafSerial(web));
  accepted(served.server);
  assert.deepEqual(side.rejections, ['destination']);
});

test('a server whose certificate is on a list is refused by its client', async () => {
  const side = new Side();
  await side.revocation.replace([revoking(cart)]);
  await using pair = await tcpPair();
  const [, connected] = await Promise.allSettled([
    acceptTls(pair.far, cart, { contexts: new TlsContexts(), clock: systemClock }),
    connectTls(pair.near, web, [CART], side.options),
  ]);

  assertRevoked(connected, leafSerial(cart));
  assert.deepEqual(side.rejections, ['source']);
});

test('an intermediate that its root revoked takes every leaf below it along', async () => {
  const other = await meshCa('other');
  const side = new Side();
  const material = await other.material(WEB, { rootsPem: [ca.rootPem] });
  const server = await ca.material(CART, { rootsPem: [ca.rootPem, other.rootPem] });
  await using before = await handshake(side, material, server);
  accepted(before.server);
  const serial = serialOf(other.issuingPem);
  await side.revocation.replace([buildCrl(rootOf(other), { serials: [serial] })]);
  await using after = await handshake(side, material, server);

  assertRevoked(after.server, serial);
});

test('a list of a CA nobody is below, and a status nobody knows, are no objection', async () => {
  const side = new Side();
  const other = await meshCa('other');
  await side.revocation.replace([buildCrl(issuingOf(other), { serials: [leafSerial(web)] })]);
  await using joined = await handshake(side);

  accepted(joined.server);
});

test('two CAs of one name: a list of one revokes nothing of the other', async () => {
  const side = new Side();
  const namesake = await meshCa();
  await side.revocation.replace([buildCrl(issuingOf(namesake), { serials: [leafSerial(web)] })]);
  await using joined = await handshake(side);

  accepted(joined.server);
  assert.deepEqual(side.lines, []);
});

test('a forged list revokes nothing, and that is said once', async () => {
  const side = new Side();
  const { privateKey } = await generateKeyPair();
  await side.revocation.replace([buildCrl(issuingOf(ca), { serials: [leafSerial(web)], signWith: privateKey })]);
  await using first = await handshake(side);
  await using second = await handshake(side);

  accepted(first.server);
  accepted(second.server);
  assert.deepEqual(side.lines, [
    'revocation list of CN=test issuing, O=Culvert is not used: its signature does not verify with the key of that CA',
  ]);
});

test('a revoked intermediate that a client only sends along does not count against it', async () => {
  const other = await meshCa('other');
  const side = new Side();
  await side.revocation.replace([buildCrl(rootOf(other), { serials: [serialOf(other.issuingPem)] })]);
  await using joined = await handshake(side, { ...web, chainPem: web.chainPem + other.issuingPem + other.rootPem });

  accepted(joined.server);
});

test('a client that sends more certificates than any mesh has is refused, whatever they are', async () => {
  const side = new Side();
  const junk = Array.from({ length: 17 }, () => ca.issuingPem).join('');
  await using joined = await handshake(side, { ...web, chainPem: web.chainPem + junk });

  assert(joined.server.status === 'rejected');
  assert.match(String(joined.server.reason), /peer sent more than 16 certificates/);
});

test('a new list ends the live tunnels of who is on it, once, and leaves the others alone', async () => {
  const side = new Side();
  const third = await ca.material('spiffe://cluster.local/ns/shop/sa/third');
  await using mine = await handshake(side);
  await using other = await handshake(side, third);
  const ends: MeshError[] = [];
  side.revocation.watch(accepted(mine.server), (error) => ends.push(error));
  side.revocation.watch(accepted(other.server), () => assert.fail('the wrong tunnel was ended'));

  await side.revocation.replace([revoking(web)]);
  await side.revocation.replace([revoking(web)]);

  assert.deepEqual(
    ends.map(({ code, message }) => ({ code, message })),
    [{ code: 'CV-PEER-REVOKED', message: 'connection closed: peer certificate revoked by CRL' }],
  );
  assert.deepEqual(side.lines, ['tunnels closed: peer certificate revoked by CRL']);
  assert.deepEqual(side.rejections, ['destination']);
});

test('a list that comes between the handshake and the tunnel is not missed', async () => {
  const side = new Side();
  await using joined = await handshake(side);
  await side.revocation.replace([revoking(web)]);
  const { promise, resolve } = Promise.withResolvers<MeshError>();
  side.revocation.watch(accepted(joined.server), resolve);

  assert.equal((await promise).code, 'CV-PEER-REVOKED');
});

test('a tunnel that closed is forgotten', async () => {
  const side = new Side();
  await using joined = await handshake(side);
  const socket = accepted(joined.server);
  side.revocation.watch(socket, () => assert.fail('it was closed already'));
  assert.equal(side.revocation.watchedCount, 1);
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;

  assert.equal(side.revocation.watchedCount, 0);
  await side.revocation.replace([revoking(web)]);
});

test('a serial taken off the list is accepted again', async () => {
  const side = new Side();
  await side.revocation.replace([revoking(web)]);
  await side.revocation.replace([]);
  await using joined = await handshake(side);

  accepted(joined.server);
});

test('of lists that come while longer ones are read, the later ones hold', async () => {
  const side = new Side();
  const serials = Array.from({ length: 10_000 }, (_, i) => (0x1000_0000 + i).toString(16));
  const longer = buildCrl(issuingOf(ca), { serials });
  await Promise.all([side.revocation.replace([longer]), side.revocation.replace([revoking(web)])]);
  await using joined = await handshake(side);

  assertRevoked(joined.server, leafSerial(web));
});

test('lists that cannot be read leave those in force', async () => {
  const side = new Side();
  await side.revocation.replace([revoking(web)]);
  await assert.rejects(side.revocation.replace([Buffer.of(0x30, 0x01)]), { code: 'CV-WIRE-MALFORMED' });
  await using joined = await handshake(side);

  assertRevoked(joined.server, leafSerial(web));
});
