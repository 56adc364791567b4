/**
 * Our HTTP/2 engine against node:http2, one server and one client process each, CONNECT streams over TLS on loopback.
 * Interleaved rounds, medians, ratio. `node test/bench/h2-engine.ts [--rounds 3] [--seconds 2]`.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import http2 from 'node:http2';
import type net from 'node:net';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { systemClock } from '../../src/sys/system-clock.ts';
import { H2Session } from '../../src/tunnel/h2-session.ts';
import { CLIENT_SETTINGS, SERVER_SETTINGS } from '../../src/tunnel/h2-settings.ts';
import { meshCa } from '../support/certs.ts';

const ENGINES = ['node:http2', 'ours'] as const;
type Engine = (typeof ENGINES)[number];

interface Certificates {
  readonly key: string;
  readonly cert: string;
  readonly ca: readonly string[];
}

interface Scenario {
  readonly name: string;
  readonly unit: string;
  readonly streams: number;
  /** `up`: the client sends as fast as it can. `echo`: 1 KiB there and back. `idle`: nothing. */
  readonly kind: 'up' | 'echo' | 'idle';
  readonly isLessBetter?: boolean;
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'throughput, 1 stream', unit: 'Gbit/s', streams: 1, kind: 'up' },
  { name: 'throughput, 8 streams', unit: 'Gbit/s', streams: 8, kind: 'up' },
  { name: '1 KiB echo, 1 stream', unit: '1/s', streams: 1, kind: 'echo' },
  { name: '1 KiB echo, 64 streams', unit: '1/s', streams: 64, kind: 'echo' },
  { name: 'idle stream, server side', unit: 'bytes', streams: 100, kind: 'idle', isLessBetter: true },
];

const ECHO_BYTES = 1024;
const CHUNK_BYTES = 65_536;
/** Tunnels of the idle scenario, each with `streams` streams. */
const IDLE_SESSIONS = 100;

/** A stream of either engine, as the load needs it. */
interface Stream {
  write(chunk: Uint8Array): boolean;
  onData: (chunk: Uint8Array) => void;
  onDrain: () => void;
}

// --- server process

function tlsOptions({ key, cert, ca }: Certificates): tls.TlsOptions {
  return { key, cert, ca: [...ca], ALPNProtocols: ['h2'], minVersion: 'TLSv1.3' };
}

/** Swallows bulk, echoes 1 KiB messages: the authority says which. */
function serveOurs(certificates: Certificates): net.Server {
  return tls.createServer({ ...tlsOptions(certificates), allowHalfOpen: true }, (socket) => {
    const session = new H2Session({
      socket,
      role: 'server',
      settings: SERVER_SETTINGS,
      clock: systemClock,
      handlers: {
        onStream: (stream, { authority = '' }) => {
          const isEcho = authority.startsWith('echo');
          stream.respond(200);
          stream.open({
            onData: (chunk) => void (isEcho && stream.write(chunk)),
            onEnd: () => stream.end(),
            onDrain: () => undefined,
            onClose: () => undefined,
          });
        },
        onClose: () => undefined,
      },
    });
    void session;
  });
}

const NODE_SETTINGS: http2.Settings = { initialWindowSize: 4_194_304, maxFrameSize: 1_048_576 };

function serveNode(certificates: Certificates): net.Server {
  const server = http2.createSecureServer({
    ...tlsOptions(certificates),
    settings: { ...NODE_SETTINGS, maxConcurrentStreams: 200 },
  });
  server.on('session', (session) => session.setLocalWindowSize(16_777_216));
  server.on('stream', (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => {
    const isEcho = headers[':authority']?.startsWith('echo') === true;
    stream.respond({ ':status': 200 });
    stream.on('error', () => undefined);
    stream.on('data', (chunk: Buffer) => void (isEcho && stream.write(chunk)));
  });
  server.on('sessionError', () => undefined);
  return server;
}

async function runServer(engine: Engine, certificates: Certificates): Promise<void> {
  const server = engine === 'ours' ? serveOurs(certificates) : serveNode(certificates);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.on('message', () => {
    globalThis.gc?.();
    globalThis.gc?.();
    const { rss, heapUsed, external } = process.memoryUsage();
    process.send?.({ rss, heap: heapUsed + external, cpu: process.cpuUsage() });
  });
  process.send?.({ port: (server.address() as net.AddressInfo).port });
}

// --- client process

async function dial(port: number, certificates: Certificates): Promise<tls.TLSSocket> {
  const socket = tls.connect({
    ...tlsOptions(certificates),
    port,
    host: '127.0.0.1',
    checkServerIdentity: () => undefined,
  });
  await once(socket, 'secureConnect');
  return socket;
}

type Open = (authority: string) => Promise<Stream>;

async function openOurs(port: number, certificates: Certificates): Promise<Open> {
  const socket = await dial(port, certificates);
  const session = new H2Session({
    socket,
    role: 'client',
    settings: CLIENT_SETTINGS,
    clock: systemClock,
    handlers: { onClose: () => undefined },
  });
  return async (authority) => {
    const stream = session.request({ authority });
    await stream.response;
    const adapter: Stream = {
      write: (chunk) => stream.write(chunk),
      onData: () => undefined,
      onDrain: () => undefined,
    };
    stream.open({
      onData: (chunk) => adapter.onData(chunk),
      onEnd: () => undefined,
      onDrain: () => adapter.onDrain(),
      onClose: () => undefined,
    });
    return adapter;
  };
}

async function openNode(port: number, certificates: Certificates): Promise<Open> {
  const socket = await dial(port, certificates);
  const session = http2.connect('https://peer', {
    createConnection: () => socket,
    settings: { ...NODE_SETTINGS, enablePush: false },
  });
  await once(session, 'connect');
  session.setLocalWindowSize(16_777_216);
  return async (authority) => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false });
    const adapter: Stream = {
      write: (chunk) => stream.write(chunk),
      onData: () => undefined,
      onDrain: () => undefined,
    };
    await once(stream, 'response');
    stream.on('data', (chunk: Buffer) => adapter.onData(chunk));
    stream.on('drain', () => adapter.onDrain());
    return adapter;
  };
}

/** Bytes or round trips per second. */
function load(stream: Stream, kind: Scenario['kind'], count: (n: number) => void): void {
  if (kind === 'echo') {
    const message = Buffer.alloc(ECHO_BYTES, 'x');
    let got = 0;
    stream.onData = (chunk) => {
      got += chunk.length;
      if (got < ECHO_BYTES) return;
      got -= ECHO_BYTES;
      count(1);
      stream.write(message);
    };
    stream.write(message);
  } else if (kind === 'up') {
    const chunk = Buffer.alloc(CHUNK_BYTES, 'x');
    const pump = () => {
      while (stream.write(chunk)) count(chunk.length);
      count(chunk.length);
    };
    stream.onDrain = pump;
    pump();
  }
}

interface ClientJob {
  readonly engine: Engine;
  readonly scenario: Scenario;
  readonly port: number;
  readonly certificates: Certificates;
  readonly seconds: number;
}

async function runClient({ engine, scenario, port, certificates, seconds }: ClientJob): Promise<void> {
  let total = 0;
  const sessions = scenario.kind === 'idle' ? IDLE_SESSIONS : 1;
  for (let i = 0; i < sessions; i++) {
    const open = await (engine === 'ours' ? openOurs : openNode)(port, certificates);
    if (scenario.kind === 'idle') process.send?.({ session: i });
    for (let n = 0; n < scenario.streams; n++)
      load(await open(`${scenario.kind}:1`), scenario.kind, (by) => (total += by));
  }
  if (scenario.kind === 'idle') {
    process.send?.({ result: 0 });
    return;
  }
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = { total, at: performance.now() };
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const perSecond = (total - before.total) / ((performance.now() - before.at) / 1000);
  process.send?.({ result: scenario.kind === 'up' ? (perSecond * 8) / 1e9 : perSecond });
}

// --- parent

type Message = Record<string, number>;

async function answerOf(child: ChildProcess, field: string): Promise<number> {
  for (;;) {
    const [message] = (await Promise.race([once(child, 'message'), once(child, 'exit').then(() => [{}])])) as [Message];
    const value = message[field];
    if (value !== undefined) return value;
    if (child.exitCode !== null) throw new Error(`the bench process ended with ${child.exitCode}`);
  }
}

function start(job: object): ChildProcess {
  const execArgv = ['--expose-gc', ...(process.env['BENCH_NODE_ARGS'] ?? '').split(' ').filter((arg) => arg !== '')];
  const child = fork(fileURLToPath(import.meta.url), ['child'], { execArgv });
  child.send(job);
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  await gone;
}

async function measure(
  engine: Engine,
  scenario: Scenario,
  certificates: Certificates,
  seconds: number,
): Promise<number> {
  const server = start({ role: 'server', engine, certificates });
  const port = await answerOf(server, 'port');
  const memory = async () => {
    server.send({});
    return await answerOf(server, 'rss');
  };
  // The TLS connections themselves are not what is compared: a run with one stream each is the base line.
  const idleBase = scenario.kind === 'idle' ? await idleServer(engine, { ...scenario, streams: 1 }, certificates) : 0;
  const client = start({ role: 'client', engine, scenario, port, certificates, seconds });
  let result = await answerOf(client, 'result');
  if (scenario.kind === 'idle') result = ((await memory()) - idleBase) / (IDLE_SESSIONS * (scenario.streams - 1));
  await stop(client);
  await stop(server);
  return result;
}

async function idleServer(engine: Engine, scenario: Scenario, certificates: Certificates): Promise<number> {
  const server = start({ role: 'server', engine, certificates });
  const port = await answerOf(server, 'port');
  const client = start({ role: 'client', engine, scenario, port, certificates, seconds: 0 });
  await answerOf(client, 'result');
  server.send({});
  const rss = await answerOf(server, 'rss');
  await stop(client);
  await stop(server);
  return rss;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '2' },
      only: { type: 'string', default: '' },
    },
  });
  const material = await (await meshCa('bench')).material('spiffe://cluster.local/ns/bench/sa/peer');
  const certificates = { key: material.keyPem, cert: material.chainPem, ca: material.rootsPem };
  console.log(`${''.padEnd(28)}${ENGINES.map((engine) => engine.padStart(14)).join('')}${'ratio'.padStart(9)}`);
  for (const scenario of SCENARIOS.filter(({ name }) => name.includes(values.only))) {
    const results: Record<Engine, number[]> = { 'node:http2': [], ours: [] };
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const engine of ENGINES)
        results[engine].push(await measure(engine, scenario, certificates, Number(values.seconds)));
    }
    const [theirs, ours] = [median(results['node:http2']), median(results.ours)];
    const digits = scenario.unit === 'Gbit/s' ? 2 : 0;
    const cells = [theirs, ours].map((value) => value.toFixed(digits).padStart(14)).join('');
    const name = `${scenario.name} (${scenario.unit})`;
    console.log(
      `${name.padEnd(38)}${cells}${(ours / theirs).toFixed(2).padStart(9)}${scenario.isLessBetter === true ? '  less is better' : ''}`,
    );
  }
}

if (process.argv[2] === 'child') {
  const [job] = (await once(process, 'message')) as [ClientJob & { readonly role: string }];
  if (job.role === 'server') await runServer(job.engine, job.certificates);
  else await runClient(job);
} else {
  await main();
}
