import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import type net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { received } from '../../../src/sys/first-bytes.ts';
import { libc } from '../../../src/sys/libc.ts';
import { getOption, SO_RCVLOWAT } from '../../../src/sys/sockopt.ts';
import { socketFd } from '../../../src/sys/tcp.ts';
import { type TcpPair, tcpPair } from '../../support/tcp.ts';

const bounded = { timeout: 90_000 };

const hasHello = (head: Uint8Array): boolean => head.length >= 5;

for (const when of ['before', 'after'] as const) {
  test(`what a client says ${when} it is waited for is heard of, and stays with the kernel`, bounded, async () => {
    await using made = await tcpPair({ pauseOnConnect: true });
    if (when === 'before') await new Promise((resolve) => made.near.write('hello', resolve));
    const heard = received(made.far, hasHello);
    if (when === 'after') made.near.write('hello');

    assert.equal(await heard, true);
    assert.equal(made.far.readableLength, 0);
    assert.equal(takeAll(made.far), 'hello');
  });
}

test('half a word is waited on for the rest, octet by octet, without a look at what is there', bounded, async () => {
  await using made = await tcpPair({ pauseOnConnect: true });
  let looks = 0;
  const looked = new EventEmitter();
  const heard = received(made.far, (head) => {
    looks += 1;
    setImmediate(() => looked.emit('look'));
    return hasHello(head);
  });
  for (const letter of 'hell') {
    const seen = once(looked, 'look');
    made.near.write(letter);
    await seen;
    for (let turn = 0; turn < 10; turn++) await nextTurn();
  }
  assert.equal(looks, 4);
  made.near.write('o');

  assert.equal(await heard, true);
  assert.equal(takeAll(made.far), 'hello');
  // What follows is told of again as it comes.
  assert.equal(getOption(socketFd(made.far) ?? -1, SO_RCVLOWAT), 1);
});

const SILENT_ENDS: readonly [string, (made: TcpPair) => void][] = [
  ['ends', ({ near }) => near.end()],
  ['ends in the middle', ({ near }) => near.end('hel')],
  ['resets', ({ near }) => near.resetAndDestroy()],
  ['is cut by us', ({ far }) => far.destroy()],
];
for (const [what, end] of SILENT_ENDS) {
  test(`a client that ${what} before it has spoken is not waited for`, bounded, async () => {
    await using made = await tcpPair({ pauseOnConnect: true });
    made.far.on('error', () => {});
    const heard = received(made.far, hasHello);
    end(made);

    assert.equal(await heard, false);
  });
}

function takeAll(socket: net.Socket): string {
  const buffer = Buffer.alloc(16);
  return buffer.toString('latin1', 0, libc.recv(socketFd(socket) ?? -1, buffer, buffer.length, 0));
}
