import assert from 'node:assert/strict';
import type net from 'node:net';
import { test } from 'node:test';
import { meshForFile } from '../../support/mesh.ts';
import { ask, dial, gone } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { fillUntilBlocked } from '../../support/tcp.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server', 'outside'] } });

/** HBONE to a captured server, plaintext to an uncaptured one, plaintext into a captured one. */
const WAYS = [
  ['HBONE', 'client', 'server'],
  ['outbound plaintext', 'client', 'outside'],
  ['inbound plaintext', 'outside', 'server'],
] as const;

/** The server's end of the next connection. */
function nextConnection(pod: string, port: number) {
  const { promise, resolve } = Promise.withResolvers<net.Socket>();
  const application = mesh().serve(pod, port, resolve);
  return { socket: promise, [Symbol.dispose]: () => application[Symbol.dispose]() };
}

for (const [way, from, to] of WAYS) {
  const at = (port: number) => ({ ip: mesh().pod(to).ip, port });

  test(`${way}: the client ends its half and still reads what the server says afterwards`, privileged, async () => {
    using server = nextConnection(to, 8001);
    using client = await dial(mesh(), from, at(8001));
    client.socket.end('question');
    const socket = await server.socket;
    const heard = await textToEnd(socket);
    assert.equal(heard, 'question');
    socket.write('first ');
    await client.atLeast(6);
    socket.end('last');
    assert.equal(await client.ended(), 'end');
    assert.equal(client.text, 'first last');
  });

  test(`${way}: the server ends its half first and still hears the client`, privileged, async () => {
    using server = nextConnection(to, 8002);
    using client = await dial(mesh(), from, at(8002));
    const socket = await server.socket;
    socket.end('goodbye');
    assert.equal(await client.ended(), 'end');
    assert.equal(client.text, 'goodbye');
    client.socket.end('one more thing');
    assert.equal(await textToEnd(socket), 'one more thing');
  });

  test(`${way}: a reset by the server reaches the client as a reset`, privileged, async () => {
    using server = nextConnection(to, 8003);
    using client = await dial(mesh(), from, at(8003));
    const socket = await server.socket;
    socket.write('half an ans');
    await client.atLeast(11);
    socket.resetAndDestroy();
    assert.equal(await client.ended(), 'reset');
  });

  test(`${way}: a reset by the client reaches the server as a reset`, privileged, async () => {
    using server = nextConnection(to, 8004);
    using client = await dial(mesh(), from, at(8004));
    client.socket.write('half a quest');
    const socket = await server.socket;
    const { promise: errno, resolve } = Promise.withResolvers<string>();
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
    socket.on('close', () => resolve('closed in order'));
    if (socket.bytesRead === 0) await new Promise((heard) => socket.once('data', heard));
    client.socket.resetAndDestroy();
    assert.equal(await errno, 'ECONNRESET');
  });

  test(`${way}: the server may speak first`, privileged, async () => {
    using _app = mesh().serve(to, 8005, (socket) => socket.write('220 ready\r\n'));
    using client = await dial(mesh(), from, at(8005));
    assert.equal(await client.atLeast(11), '220 ready\r\n');
  });

  test(`${way}: an empty connection ends in order`, privileged, async () => {
    using _app = mesh().serve(to, 8006, (socket) => socket.on('end', () => socket.end()));
    assert.equal(await ask(mesh(), from, at(8006)), '');
  });

  test(`${way}: a reader that stops is waited for, not buffered for`, privileged, async () => {
    using server = nextConnection(to, 8007);
    using client = await dial(mesh(), from, at(8007));
    const socket = await server.socket;
    socket.pause();
    const sent = await fillUntilBlocked(client.socket);
    // Windows of the tunnel and socket buffers of every hop: far below what an unbounded buffer would take.
    assert.ok(sent < 64 * 1024 * 1024, `${sent} bytes were taken from a client whose server does not read`);
    let received = 0;
    const ended = new Promise((resolve) => socket.once('end', resolve));
    socket.on('data', (chunk: Buffer) => (received += chunk.length)).resume();
    client.socket.end();
    await ended;
    assert.equal(received, sent);
    socket.destroy();
    await gone(socket);
  });
}

async function textToEnd(socket: net.Socket): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  if (!socket.readableEnded) await new Promise((resolve) => socket.once('end', resolve));
  return Buffer.concat(chunks).toString();
}
