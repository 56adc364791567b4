import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import type { ByteStream, ByteStreamHandlers } from '../../../src/tunnel/byte-stream.ts';
import { type IdleLooks, type IdleSweep, Relay } from '../../../src/tunnel/relay.ts';

/** A stream without a network, driven by the test. */
class HandStream implements ByteStream {
  readonly bufferedBytes = 0;
  readonly isLending = false;
  #handlers: ByteStreamHandlers | undefined;

  get told(): ByteStreamHandlers {
    assert(this.#handlers !== undefined);
    return this.#handlers;
  }

  open(handlers: ByteStreamHandlers): void {
    this.#handlers = handlers;
  }

  write(): boolean {
    return true;
  }

  destroy(): void {
    this.told.onClose(undefined);
  }

  end(): void {}
  pause(): void {}
  resume(): void {}
}

function joined() {
  const client = new HandStream();
  const server = new HandStream();
  const ends: (MeshError | undefined)[] = [];
  const relay = new Relay(client, server, {
    addClientBytes: () => {},
    addServerBytes: () => {},
    relayDone: (error) => ends.push(error),
  });
  relay.start();
  const looks: IdleLooks = {};
  const takeIdle = (sweep: IdleSweep): boolean => relay.takeIdle(sweep, looks);
  return { client, server, relay, ends, takeIdle };
}

test('a connection is idle only when nothing moved for a whole period of the sweep that asks', () => {
  const { client, takeIdle } = joined();
  takeIdle('any');
  assert.equal(takeIdle('any'), true);
  client.told.onData(Uint8Array.of(1));
  assert.equal(takeIdle('half-closed'), false, 'the other sweep looked just before');
  assert.equal(takeIdle('any'), false);
  assert.equal(takeIdle('half-closed'), true);
});

test('a connection that was idle for long has a whole period from its half-close on', () => {
  const { client, relay, takeIdle } = joined();
  takeIdle('half-closed');
  assert.equal(relay.isHalfClosed, false);
  client.told.onEnd();
  assert.equal(relay.isHalfClosed, true);
  assert.equal(takeIdle('half-closed'), false);
  assert.equal(takeIdle('half-closed'), true);
});

test('a connection whose both halves have ended and that does not close counts as half-closed', () => {
  const { client, server, relay } = joined();
  client.told.onEnd();
  server.told.onEnd();
  assert.equal(relay.isHalfClosed, true);
});

for (const [side, text] of [
  ['client', 'send: io error: read ETIMEDOUT'],
  ['server', 'receive: io error: read ETIMEDOUT'],
] as const) {
  test(`a failure of the socket to the ${side} says in which direction it happened`, () => {
    const pair = joined();
    pair[side].told.onClose(new MeshError('CV-IO', 'io error: read ETIMEDOUT'));
    assert.deepEqual(
      pair.ends.map((error) => [error?.code, error?.message]),
      [['CV-IO', text]],
    );
  });
}

test('the socket beside a tunnel is given away once, also when it has closed in order', () => {
  const { client, server, relay } = joined();
  client.told.onEnd();
  server.told.onEnd();
  client.told.onClose(undefined);
  const socket = relay.detachFrom(server) ?? assert.fail();
  closeFd(socket);
  assert.equal(relay.detachFrom(server), undefined);
});
