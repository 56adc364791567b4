import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { received } from '../../../src/sys/first-bytes.ts';
import { libc } from '../../../src/sys/libc.ts';
import { getOption, SO_RCVLOWAT } from '../../../src/sys/sockopt.ts';
import { socketFd } from '../../../src/sys/tcp.ts';

const bounded = { timeout: 20_000 };

/** A client, and the paused socket that was accepted for it. */
async function pair(): Promise<{ client: net.Socket; accepted: net.Socket } & AsyncDisposable> {
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const client = net.connect(port, '127.0.0.1');
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [
    [net.Socket],
    unknown,
  ];
  return {
    client,
    accepted,
    async [Symbol.asyncDispose]() {
      client.destroy();
      accepted.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

const hasHello = (head: Uint8Array): boolean => head.length >= 5;

for (const when of ['before', 'after'] as const) {
  test(`what a client says ${when} it is waited for is heard of, and stays with the kernel`, bounded, async () => {
    await using made = await pair();
    if (when === 'before') await new Promise((resolve) => made.client.write('hello', resolve));
    const heard = received(made.accepted, hasHello);
    if (when === 'after') made.client.write('hello');

    assert.equal(await heard, true);
    assert.equal(made.accepted.readableLength, 0);
    assert.equal(takeAll(made.accepted), 'hello');
  });
}

test('half a word is waited on for the rest, octet by octet, without a look at what is there', bounded, async () => {
  await using made = await pair();
  let looks = 0;
  const looked = new EventEmitter();
  const heard = received(made.accepted, (head) => {
    looks += 1;
    setImmediate(() => looked.emit('look'));
    return hasHello(head);
  });
  for (const letter of 'hell') {
    const seen = once(looked, 'look');
    made.client.write(letter);
    await seen;
    for (let turn = 0; turn < 10; turn++) await nextTurn();
  }
  assert.equal(looks, 4);
  made.client.write('o');

  assert.equal(await heard, true);
  assert.equal(takeAll(made.accepted), 'hello');
  // What follows is told of again as it comes.
  assert.equal(getOption(socketFd(made.accepted) ?? -1, SO_RCVLOWAT), 1);
});

const SILENT_ENDS: readonly [string, (made: Awaited<ReturnType<typeof pair>>) => void][] = [
  ['ends', ({ client }) => client.end()],
  ['ends in the middle', ({ client }) => client.end('hel')],
  ['resets', ({ client }) => client.resetAndDestroy()],
  ['is cut by us', ({ accepted }) => accepted.destroy()],
];
for (const [what, end] of SILENT_ENDS) {
  test(`a client that ${what} before it has spoken is not waited for`, bounded, async () => {
    await using made = await pair();
    made.accepted.on('error', () => {});
    const heard = received(made.accepted, hasHello);
    end(made);

    assert.equal(await heard, false);
  });
}

function takeAll(socket: net.Socket): string {
  const buffer = Buffer.alloc(16);
  return buffer.toString('latin1', 0, libc.recv(socketFd(socket) ?? -1, buffer, buffer.length, 0));
}
