/** Bulk between two real sockets: it goes past this process, and nothing else about a relay changes. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import net from 'node:net';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { dialTcp, listenOn } from '../../../src/sys/tcp.ts';
import { Relay } from '../../../src/tunnel/relay.ts';
import { SocketStream } from '../../../src/tunnel/socket-stream.ts';
import { fillUntilBlocked } from '../../support/tcp.ts';

const MIB = 1024 * 1024;
const TIMEOUT = { timeout: 60_000 };

interface Carried extends AsyncDisposable {
  readonly client: net.Socket;
  readonly app: net.Socket;
  /** What the relay holds of each. */
  readonly near: { readonly client: net.Socket; readonly app: net.Socket };
  readonly relay: Relay;
  readonly counted: { client: number; server: number };
  readonly done: Promise<MeshError | undefined>;
}

/** A client and an application, joined by a relay as the agent makes it: both of its sockets lend. */
async function carried(): Promise<Carried> {
  await using undo = new AsyncDisposableStack();
  const app = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  undo.defer(() => void app.close());
  const front = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
  const accepted = Promise.withResolvers<net.Socket>();
  const listener = listenOn(front.fd, { onConnection: accepted.resolve, isLending: true });
  undo.defer(() => void listener.close());
  await once(app, 'listening');
  const appSide = once(app, 'connection');
  const limits = { timeoutMs: 20_000, clock: systemClock, isLending: true };
  const toApp = { ip: '127.0.0.1', port: (app.address() as net.AddressInfo).port };
  const upstream = await dialTcp(linuxSys, undefined, toApp, { family: 4 }, limits);
  const { port } = listener.address() as net.AddressInfo;
  const client = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  const [downstream, [server]] = await Promise.all([accepted.promise, appSide as Promise<[net.Socket]>]);
  const end = Promise.withResolvers<MeshError | undefined>();
  const counted = { client: 0, server: 0 };
  const owner = {
    addClientBytes: (bytes: number) => void (counted.client += bytes),
    addServerBytes: (bytes: number) => void (counted.server += bytes),
    relayDone: end.resolve,
  };
  const relay = new Relay(new SocketStream(downstream), new SocketStream(upstream), owner);
  relay.start();
  for (const socket of [client, server]) socket.on('error', () => {});
  const stack = undo.move();
  stack.defer(() => {
    for (const socket of [client, server, downstream, upstream]) socket.destroy();
  });
  return {
    client,
    app: server,
    near: { client: downstream, app: upstream },
    relay,
    counted,
    done: end.promise,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Bytes that tell where they belong: no piece of them fits at another place. */
function numbered(bytes: number, seed: number): Buffer {
  const words = new Uint32Array(bytes / 4);
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at + seed, 2_654_435_761);
  return Buffer.from(words.buffer);
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Reads to the end; with pauses in between, as a slow reader does. */
async function received(socket: net.Socket, isSlow = false): Promise<{ bytes: number; digest: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
    if (!isSlow) return;
    socket.pause();
    setImmediate(() => socket.resume());
  });
  await once(socket, 'end');
  return { bytes, digest: hash.digest('hex') };
}

function closed(socket: net.Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

function openPipes(): number {
  return readdirSync('/proc/self/fd').filter((fd) => linkOf(fd).startsWith('pipe:')).length;
}

function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

for (const [name, isSlow] of [
  ['a reader that keeps up', false],
  ['a slow reader', true],
] as const) {
  test(`bulk reaches ${name} unchanged, both ways at once, each half ending by itself`, TIMEOUT, async () => {
    await using pair = await carried();
    const up = numbered(24 * MIB, 1);
    const down = numbered(16 * MIB, 2);
    const atApp = received(pair.app, isSlow);
    const atClient = received(pair.client, isSlow);

    pair.client.end(up);
    assert.deepEqual(await atApp, { bytes: up.length, digest: digest(up) });
    pair.app.end(down);
    assert.deepEqual(await atClient, { bytes: down.length, digest: digest(down) });

    assert.equal(await pair.done, undefined);
    assert.deepEqual(pair.counted, { client: up.length, server: down.length });
  });
}

test('most of a bulk transfer is never read by this process', TIMEOUT, async () => {
  await using pair = await carried();
  const bytes = numbered(64 * MIB, 3);
  const atApp = received(pair.app);

  pair.client.end(bytes);

  assert.equal((await atApp).digest, digest(bytes));
  assert(pair.near.client.bytesRead < bytes.length / 2, `${pair.near.client.bytesRead} bytes were read`);
});

/** A reader that has stopped, and as much written to it as anybody on the way takes. */
async function stalled(pair: Carried): Promise<void> {
  pair.app.pause();
  await fillUntilBlocked(pair.client);
}

test('a reader that stops bounds what is on the way, and cannot be handed over until it reads', TIMEOUT, async () => {
  await using pair = await carried();
  await stalled(pair);
  const onTheWay = pair.counted.client;
  assert(onTheWay < 64 * MIB, `${onTheWay} bytes were taken from the writer`);

  await pair.relay.quiesce(systemClock, 100);
  assert.equal(pair.relay.detach(), undefined, 'bytes would be lost');

  pair.app.resume();
  await pair.relay.quiesce(systemClock, 20_000);
  const moved = pair.relay.detach();
  assert(moved !== undefined, 'nothing is left here');
  for (const fd of [moved.downstream, moved.upstream]) linuxSys.close(fd);
});

test('a client that resets in the middle of bulk resets the application, without an error', TIMEOUT, async () => {
  await using pair = await carried();
  await stalled(pair);
  const reset = closed(pair.app);

  pair.client.resetAndDestroy();
  pair.app.resume();

  await reset;
  assert.equal((pair.app.errored as NodeJS.ErrnoException | null)?.code, 'ECONNRESET');
  assert.equal(await pair.done, undefined);
});

test('an application that resets in the middle of bulk resets the client, without an error', TIMEOUT, async () => {
  await using pair = await carried();
  await stalled(pair);
  pair.client.resume();
  const reset = closed(pair.client);

  pair.app.resetAndDestroy();

  await reset;
  assert.equal(await pair.done, undefined);
});

test('connections that are cut while they hold bytes leave no pipe behind', TIMEOUT, async () => {
  const before = openPipes();
  const cut = async (): Promise<void> => {
    await using pair = await carried();
    await stalled(pair);
    pair.relay.close(new MeshError('CV-POLICY-CHANGED', 'connection closed due to policy change'));
    assert.equal((await pair.done)?.code, 'CV-POLICY-CHANGED');
  };
  await Promise.all(Array.from({ length: 12 }, cut));
  // Eight empty ones are kept, of two descriptors each.
  assert(openPipes() <= before + 16, `${openPipes() - before} descriptors of pipes are open`);
});
