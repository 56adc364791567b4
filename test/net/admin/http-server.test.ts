import assert from 'node:assert/strict';
import diagnostics from 'node:diagnostics_channel';
import { once } from 'node:events';
import { Agent } from 'node:http';
import net from 'node:net';
import { test } from 'node:test';
import { HttpServer, type HttpServerOptions } from '../../../src/agent/admin/http-server.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { ask } from './http.ts';

const LARGE = new Uint8Array(64 * 1_048_576);

async function server(options: Partial<HttpServerOptions>): Promise<HttpServer> {
  const handler = () => ({ status: 200, body: LARGE });
  return await HttpServer.listen({
    host: '127.0.0.1',
    port: 0,
    component: 'test',
    clock: systemClock,
    log: silentLogger,
    handler,
    ...options,
  });
}

/** A client that sent a request and reads nothing. */
async function stuckClient(port: number): Promise<net.Socket> {
  const socket = net.connect({ port, host: '127.0.0.1' });
  socket.pause();
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
  return socket;
}

test('an error of the kernel at accept does not end the process', async () => {
  const listening = Promise.withResolvers<net.Server>();
  const told = (message: unknown): void => listening.resolve((message as { server: net.Server }).server);
  diagnostics.subscribe('tracing:net.server.listen:asyncEnd', told);
  await using http = await server({ handler: () => ({ status: 200, body: 'here' }) });
  const listener = await listening.promise;
  diagnostics.unsubscribe('tracing:net.server.listen:asyncEnd', told);

  listener.emit('error', Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' }));

  assert.equal((await ask(http.port, '/')).text, 'here');
});

test('a client that does not read its answer is cut off, so that closing does not wait for it', async () => {
  const asked = Promise.withResolvers<void>();
  const handler = () => {
    asked.resolve();
    return { status: 200, body: LARGE };
  };
  const http = await server({ stallTimeoutMs: 300, handler });
  const socket = await stuckClient(http.port);
  await asked.promise;
  await http[Symbol.asyncDispose]();
  socket.destroy();
});

test('an answer under way reaches its client whole before the server closes', async () => {
  const asked = Promise.withResolvers<void>();
  const handler = () => {
    asked.resolve();
    return { status: 200, body: LARGE };
  };
  const http = await server({ handler });
  const reply = ask(http.port, '/');
  await asked.promise;
  const closed = http[Symbol.asyncDispose]();
  assert.equal((await reply).bytes.length, LARGE.length);
  await closed;
});

test('a long answer is told that the server wants to close', async () => {
  const asked = Promise.withResolvers<void>();
  const http = await server({
    handler: async ({ signal }) => {
      asked.resolve();
      await once(signal, 'abort');
      return { status: 200, body: 'hurried' };
    },
  });
  const reply = ask(http.port, '/');
  await asked.promise;
  await http[Symbol.asyncDispose]();
  assert.equal((await reply).text, 'hurried');
});

test('a client that went away is known to a long answer, which then ends', async () => {
  const ended = Promise.withResolvers<void>();
  await using http = await server({
    handler: async ({ signal }) => {
      await once(signal, 'abort');
      ended.resolve();
      return { status: 200 };
    },
  });
  const socket = await stuckClient(http.port);
  socket.destroy();
  await ended.promise;
});

/** `count` requests of one client that waits for no answer. Resolves when it is cut off, by a reset or not. */
async function askWithoutWaiting(port: number, count: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = net.connect({ port, host: '127.0.0.1' });
  socket.on('error', () => undefined).on('close', () => resolve());
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(count));
  await promise;
}

test('a client that does not wait for its answers has one request carried out and is cut off', {
  timeout: 30_000,
}, async () => {
  let asked = 0;
  await using http = await server({
    handler: async ({ signal }) => {
      asked += 1;
      await once(signal, 'abort');
      return { status: 200 };
    },
  });
  await askWithoutWaiting(http.port, 1_000);
  assert.equal(asked, 1);
});

test('a client that waits for each answer may ask again and again', { timeout: 30_000 }, async () => {
  await using http = await server({ handler: () => ({ status: 200, body: 'x'.repeat(1_000_000) }) });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const replies = await Promise.all(Array.from({ length: 20 }, () => ask(http.port, '/', { agent })));
  assert.deepEqual(new Set(replies.map(({ status, bytes }) => `${status} ${bytes.length}`)), new Set(['200 1000000']));
  agent.destroy();
});

test('clients that hold all places and say nothing do not keep the next one out', { timeout: 30_000 }, async () => {
  await using http = await server({ handler: () => ({ status: 200, body: 'served' }) });
  const silent = Array.from({ length: 300 }, () => net.connect({ port: http.port, host: '127.0.0.1' }));
  for (const socket of silent) socket.on('error', () => undefined);
  await Promise.all(silent.map((socket) => once(socket, 'connect')));
  assert.equal((await ask(http.port, '/')).text, 'served');
  for (const socket of silent) socket.destroy();
});

test('a client that reads its answer drop by drop does not hold up closing', { timeout: 30_000 }, async () => {
  const asked = Promise.withResolvers<void>();
  const handler = () => {
    asked.resolve();
    return { status: 200, body: LARGE };
  };
  const http = await server({ closeTimeoutMs: 300, handler });
  const socket = await stuckClient(http.port);
  const drops = setInterval(() => socket.read(16_384), 50);
  await asked.promise;
  await http[Symbol.asyncDispose]();
  clearInterval(drops);
  socket.destroy();
});

/** Far more than what two sockets hold. */
function* manyPieces(onPiece: () => void): Generator<string> {
  for (let n = 0; n < 4_096; n++) {
    onPiece();
    yield 'x'.repeat(16_384);
  }
}

test('an answer in pieces is made as fast as its client reads, others are served meanwhile, and it comes whole', async () => {
  let made = 0;
  const asked = Promise.withResolvers<void>();
  await using http = await server({
    handler: ({ path }) => {
      if (path === '/small') return { status: 200, body: 'here' };
      asked.resolve();
      return { status: 200, pieces: manyPieces(() => (made += 1)) };
    },
  });
  const socket = await stuckClient(http.port);
  await asked.promise;
  assert.equal((await ask(http.port, '/small')).text, 'here');
  assert(made < 4_096, 'all was made before anybody else was served');
  socket.destroy();
  assert.equal((await ask(http.port, '/')).bytes.length, 4_096 * 16_384);
});

test('an answer whose pieces fail midway is cut short, so that nobody takes it for whole', async () => {
  const said = Promise.withResolvers<string>();
  function* broken(): Generator<string> {
    yield '[1,';
    throw new Error('no more');
  }
  const log = { warn: (text: string) => said.resolve(text) };
  await using http = await server({ log, handler: () => ({ status: 200, pieces: broken() }) });
  await assert.rejects(ask(http.port, '/'));
  assert.equal(await said.promise, 'answer not finished');
});

test('an answer in pieces makes none for HEAD', async () => {
  let made = 0;
  await using http = await server({ handler: () => ({ status: 200, pieces: manyPieces(() => (made += 1)) }) });
  assert.equal((await ask(http.port, '/', { method: 'HEAD' })).status, 200);
  assert.equal(made, 0);
});
