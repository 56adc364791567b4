import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import tls from 'node:tls';
import { DEFAULT_LIMITS } from '../../../src/tunnel/h2-settings.ts';
import { PREFACE } from '../../../src/wire/h2-protocol.ts';
import { pingFrame, settingsAckFrame, settingsFrame } from '../../../src/wire/h2-write.ts';
import { type ForgedTls, forgeTls } from '../../support/tls-records.ts';
import { Peer, tlsOptions } from './h2-peers.ts';

const bounded = { timeout: 60_000 };
const GREETING = Buffer.concat([PREFACE, settingsFrame([]), settingsAckFrame()]);
/** What libuv reads at a time. */
const READ_BYTES = 64 * 1024;
const MARK = Buffer.from('a mark');
const PING = pingFrame(Buffer.concat([MARK, Buffer.alloc(2)]), false);

interface World extends AsyncDisposable {
  readonly peer: Peer;
  /** Of the peer. */
  readonly socket: tls.TLSSocket;
  readonly forged: ForgedTls;
}

/** Our engine as server, and a client that makes its records itself and has said its greeting. */
async function world(): Promise<World> {
  const listener = tls.createServer({ ...tlsOptions, allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as net.AddressInfo;
  const accepted = once(listener, 'secureConnection') as Promise<[tls.TLSSocket]>;
  const forged = await forgeTls({ ...tlsOptions, port, host: '127.0.0.1', checkServerIdentity: () => undefined });
  const [socket] = await accepted;
  const peer = new Peer('server', socket);
  forged.sent.write(forged.maker.data(GREETING));
  return {
    peer,
    socket,
    forged,
    async [Symbol.asyncDispose]() {
      peer.session.destroy();
      forged.sent.destroy();
      socket.destroy();
      listener.close();
      await once(listener, 'close');
    },
  };
}

function updates({ maker }: ForgedTls, count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, () => maker.keyUpdate()));
}

test('a peer may change its keys now and then', bounded, async () => {
  await using here = await world();
  const { sent, received, maker } = here.forged;
  let heard = Buffer.alloc(0);
  received.on('data', (chunk: Buffer) => (heard = Buffer.concat([heard, chunk])));
  sent.write(Buffer.concat([updates(here.forged, DEFAULT_LIMITS.keyUpdates.burst), maker.data(PING)]));
  while (!heard.includes(MARK)) await new Promise(setImmediate);
  assert.equal(here.peer.session.isClosed, false);
});

test('a flood of key updates ends the session', bounded, async () => {
  await using here = await world();
  here.forged.sent.write(updates(here.forged, 2_000));
  const error = await here.peer.closed;
  assert.equal(error?.code, 'CV-TUNNEL-ABUSE');
  assert.match(error.message, /TLS key updates/);
});

test('of a flood of key updates no more is worked off than one read has brought', bounded, async () => {
  await using here = await world();
  let updated = 0;
  here.socket.on('keylog', () => void updated++);
  const count = 6_000;
  const flood = updates(here.forged, count);
  here.forged.sent.write(flood);
  assert.equal((await here.peer.closed)?.code, 'CV-TUNNEL-ABUSE');
  // Those within the limit may have come before.
  const most = DEFAULT_LIMITS.keyUpdates.burst + READ_BYTES / (flood.length / count);
  assert.ok(updated <= most, `${updated} updates`);
});
