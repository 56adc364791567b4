import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import type net from 'node:net';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { MeshError } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { dialTcp, listenForArrivals, listenOn, peerSilenceMs, socketFd } from '../../../src/sys/tcp.ts';
import { runTool } from '../../../src/sys/tool.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { readToEnd, tcpPair } from '../../support/tcp.ts';
import { until } from '../../support/until.ts';

const bounded = { timeout: 90_000 };
const limits = { timeoutMs: 5_000, clock: systemClock };
const options = { family: 4 } as const;

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof MeshError && error.code === code;
}

async function listening(onConnection: (socket: net.Socket) => void) {
  const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
  const server = listenOn(fd, { onConnection });
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  return { ip: '127.0.0.1', port, [Symbol.dispose]: () => void server.close() };
}

/** A listener that never accepts and whose queue is full: a dial to it gets no answer. */
function silentListener(): { ip: string; port: number } & Disposable {
  const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0, backlog: 0 });
  const address = localAddress(fd);
  assert(address !== undefined);
  return { ...address, [Symbol.dispose]: () => linuxSys.close(fd) };
}

test('both halves of a dialled connection end on their own', bounded, async () => {
  const accepted = Promise.withResolvers<net.Socket>();
  using to = await listening(accepted.resolve);
  const near = await dialTcp(linuxSys, undefined, to, options, limits);
  const far = await accepted.promise;

  near.end('question');
  assert.equal(await readToEnd(far.resume()), 'question');
  far.end('answer');
  assert.equal(await readToEnd(near.resume()), 'answer');
});

test('nothing is read from either socket before it is resumed', bounded, async () => {
  const accepted = Promise.withResolvers<net.Socket>();
  using to = await listening(accepted.resolve);
  const near = await dialTcp(linuxSys, undefined, to, options, limits);
  const far = await accepted.promise;
  await new Promise((resolve) => near.write('x', resolve));
  await new Promise((resolve) => far.write('y', resolve));
  assert.deepEqual([near.bytesRead, far.bytesRead], [0, 0]);
  near.destroy();
  far.destroy();
});

test('a reset that nobody listens for does not end the process', bounded, async () => {
  const accepted = Promise.withResolvers<net.Socket>();
  using to = await listening(accepted.resolve);
  const near = await dialTcp(linuxSys, undefined, to, options, limits);
  const far = (await accepted.promise).resume();
  near.resetAndDestroy();
  const [hadError] = (await once(far, 'close').catch(() => [true])) as [boolean];
  assert.equal(hadError, true);
});

test('a refused dial says so with the errno and the codes the caller chose', bounded, async () => {
  const to = await listening(() => {});
  to[Symbol.dispose]();
  await assert.rejects(dialTcp(linuxSys, undefined, to, options, limits), (error) => {
    assert(error instanceof MeshError);
    assert.equal(error.code, 'CV-APP-REFUSED');
    assert.deepEqual(error.fields, { address: `127.0.0.1:${to.port}`, errno: 'ECONNREFUSED' });
    return true;
  });
  const codes = { timeout: 'CV-TUNNEL-TIMEOUT', refused: 'CV-TUNNEL-REFUSED' } as const;
  await assert.rejects(dialTcp(linuxSys, undefined, to, options, { ...limits, codes }), hasCode('CV-TUNNEL-REFUSED'));
});

test(
  'a dial without an answer ends at its deadline, an aborted one at once, and neither leaves a descriptor',
  bounded,
  async () => {
    using to = silentListener();
    const clock = new FakeClock();
    const filler = await dialTcp(linuxSys, undefined, to, options, limits);
    const before = readdirSync('/proc/self/fd').length;

    const late = dialTcp(linuxSys, undefined, to, options, { timeoutMs: 10_000, clock });
    clock.advance(10_000);
    await assert.rejects(late, hasCode('CV-APP-TIMEOUT'));

    const abort = new AbortController();
    const given = dialTcp(linuxSys, undefined, to, options, { timeoutMs: 10_000, clock, signal: abort.signal });
    abort.abort(new MeshError('CV-DRAIN', 'stopping'));
    await assert.rejects(given, hasCode('CV-DRAIN'));
    await assert.rejects(
      dialTcp(linuxSys, undefined, to, options, { timeoutMs: 1, clock, signal: abort.signal }),
      hasCode('CV-DRAIN'),
    );

    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(readdirSync('/proc/self/fd').length, before);
    filler.destroy();
  },
);

test('a dial to what is no address is refused once, and leaves no deadline behind', bounded, async () => {
  const clock = new FakeClock();
  const nowhere = { ip: '127.0.0.1', port: 70_000 };
  await assert.rejects(dialTcp(linuxSys, undefined, nowhere, options, { timeoutMs: 10_000, clock }));
  // An unhandled rejection would fail this test.
  clock.advance(10_000);
  await new Promise((resolve) => setImmediate(resolve));
});

test('the descriptor of a socket is known while it is open', bounded, async () => {
  using to = await listening((socket) => socket.resume());
  const socket = await dialTcp(linuxSys, undefined, to, options, limits);
  assert.equal((socketFd(socket) ?? -1) > 2, true);
  socket.destroy();
  await once(socket, 'close');
  assert.equal(socketFd(socket), undefined);
});

test('sockets can be made in a worker thread', bounded, async () => {
  const code = `
    import { parentPort } from 'node:worker_threads';
    import { linuxSys } from '${new URL('../../../src/sys/linux.ts', import.meta.url).href}';
    using own = linuxSys.openNetns('/proc/thread-self/ns/net');
    const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
    linuxSys.close(fd);
    parentPort.postMessage(fd);
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
  const [fd] = (await once(worker, 'message')) as [number];
  assert.equal(fd > 2, true);
});

test('what the kernel says to an accept is told by its name', async () => {
  for (const isLending of [true, false]) {
    const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
    const said: string[] = [];
    const onError = ({ message }: Error): void => void said.push(message);
    const server = isLending
      ? listenOn(fd, { onConnection: () => {}, onError, isLending })
      : listenForArrivals(fd, { onArrival: () => {}, onError });
    // As libuv calls Node when accept4(2) fails.
    const { _handle: handle } = server as unknown as { readonly _handle: { onconnection(error: number): void } };
    handle.onconnection(-12);
    assert.deepEqual(said, ['accept failed with ENOMEM']);
    server.close();
  }
});

test('a tool that runs too long, says too much or ends by a signal is dealt with', bounded, async () => {
  await assert.rejects(runTool(undefined, ['sleep', '60'], '', { timeoutMs: 50, outputBytes: 10 }), hasCode('CV-SYS'));
  await assert.rejects(runTool(undefined, ['yes'], '', { timeoutMs: 5_000, outputBytes: 1_000 }), hasCode('CV-SYS'));
  const killed = await runTool(undefined, ['sh', '-c', 'kill -9 $$']);
  assert.equal(killed.code, -1);
  const { code, stderr } = await runTool(undefined, ['sh', '-c', 'echo no >&2; exit 3']);
  assert.deepEqual([code, stderr], [3, 'no\n']);
});

test('a tool that the kernel refuses to start is an error of that tool, and no defect', bounded, async () => {
  const tooLong = 'x'.repeat(1024 * 1024);
  await assert.rejects(runTool(undefined, ['true', tooLong]), {
    code: 'CV-SYS',
    message: /^true could not be run: .*E2BIG/,
  });
});

test('a tool that cannot be started for want of descriptors is an error of that tool alone', bounded, async () => {
  const script = `
    import { openSync } from 'node:fs';
    import { runTool } from '${new URL('../../../src/sys/tool.ts', import.meta.url).href}';
    try { for (;;) openSync('/dev/null', 'r'); } catch {}
    const { code, message } = await runTool(undefined, ['true']).catch((error) => error);
    await new Promise((resolve) => setImmediate(resolve));
    console.log(code, message);
  `;
  const run = `ulimit -n 64; exec "${process.execPath}" --input-type=module-typescript -e "$SCRIPT"`;
  const child = spawn('sh', ['-c', run], {
    env: { ...process.env, SCRIPT: script },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  assert.equal(await readToEnd(child.stdout as net.Socket), 'CV-SYS true could not be run: spawn true EMFILE\n');
});

test('a peer whose process does nothing at all is heard by what its kernel acknowledges', async () => {
  await using pair = await tcpPair({ pauseOnConnect: true });
  const silence = (): number => peerSilenceMs(pair.near) ?? Number.NaN;
  await until('it is silent for a while', () => silence() > 200);
  const wroteMs = performance.now();
  pair.near.write('hello');
  await until('its kernel acknowledges', () => silence() < performance.now() - wroteMs);
  pair.near.destroy();
  assert.equal(peerSilenceMs(pair.near), undefined);
});
