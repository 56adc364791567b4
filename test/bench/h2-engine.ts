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
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'throughput, 1 stream', unit: 'Gbit/s', streams: 1, kind: 'up' },
  { name: 'throughput, 8 streams', unit: 'Gbit/s', streams: 8, kind: 'up' },
  { name: '1 KiB echo, 1 stream', unit: '1/s', streams: 1, kind: 'echo' },
  { name: '1 KiB echo, 64 streams', unit: '1/s', streams: 64, kind: 'echo' },
  { name: 'idle stream, server side', unit: 'bytes', streams: 100, kind: 'idle' },
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

function tlsOptions({ key, cert, ca }: Certificates) {
  return { key, cert, ca: [...ca], ALPNProtocols: ['h2'], minVersion: 'TLSv1.3' as const };
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
            onData: (chunk) => void (isEcho && stream.write(chunk, stream.isLending)),
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
    process.send?.({ rss: process.memoryUsage().rss, cpuSeconds: cpuSeconds() });
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
    for (let n = 0; n < scenario.streams; n++)
      load(await open(`${scenario.kind}:1`), scenario.kind, (by) => (total += by));
  }
  if (scenario.kind === 'idle') {
    process.send?.({ result: 0, count: 0 });
    return;
  }
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = { total, at: performance.now(), cpu: cpuSeconds() };
  process.send?.({ begin: 1 });
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const count = total - before.total;
  process.send?.({
    result: count / ((performance.now() - before.at) / 1000),
    count,
    clientCpu: cpuSeconds() - before.cpu,
  });
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

// --- parent

type Message = Readonly<Record<string, number>>;

/** One process of the bench. Messages are few, so they are kept until somebody asks. */
class Child implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #messages: Message[] = [];
  #wake = Promise.withResolvers<void>();

  constructor(job: object) {
    const execArgv = ['--expose-gc', ...(process.env['BENCH_NODE_ARGS'] ?? '').split(' ').filter((arg) => arg !== '')];
    this.#process = fork(fileURLToPath(import.meta.url), ['child'], { execArgv });
    this.#process.on('message', (message: Message) => {
      this.#messages.push(message);
      this.#wake.resolve();
    });
    this.#process.on('exit', (code) => this.#wake.reject(new Error(`a bench process ended with ${code}`)));
    this.#wake.promise.catch(() => undefined);
    this.#process.send(job);
  }

  async next(field: string): Promise<Message> {
    for (;;) {
      for (let message = this.#messages.shift(); message !== undefined; message = this.#messages.shift()) {
        if (field in message) return message;
      }
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
  }

  ask(): Promise<Message> {
    this.#process.send({});
    return this.next('rss');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#wake.promise.catch(() => undefined);
    const gone = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    await gone;
  }
}

interface Result {
  readonly value: number;
  /** Of both processes, for one GiB or 100,000 echoes. */
  readonly cpuSeconds: number;
}

async function measure(
  engine: Engine,
  scenario: Scenario,
  certificates: Certificates,
  seconds: number,
): Promise<Result> {
  await using server = new Child({ role: 'server', engine, certificates });
  const { port = 0 } = await server.next('port');
  await using client = new Child({ role: 'client', engine, scenario, port, certificates, seconds });
  if (scenario.kind === 'idle') {
    await client.next('result');
    return { value: (await server.ask())['rss'] ?? 0, cpuSeconds: 0 };
  }
  await client.next('begin');
  const before = await server.ask();
  const { result = 0, count = 0, clientCpu = 0 } = await client.next('result');
  const cpu = clientCpu + ((await server.ask())['cpuSeconds'] ?? 0) - (before['cpuSeconds'] ?? 0);
  if (scenario.kind === 'up') return { value: (result * 8) / 1e9, cpuSeconds: cpu / (count / 2 ** 30) };
  return { value: result, cpuSeconds: cpu / (count / 100_000) };
}

/** The TLS connections themselves are not what is compared: the same with one stream each is taken off. */
async function measureIdle(engine: Engine, scenario: Scenario, certificates: Certificates): Promise<Result> {
  const base = await measure(engine, { ...scenario, streams: 1 }, certificates, 0);
  const full = await measure(engine, scenario, certificates, 0);
  return { value: (full.value - base.value) / (IDLE_SESSIONS * (scenario.streams - 1)), cpuSeconds: 0 };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function row(name: string, unit: string, results: readonly (readonly number[])[]): void {
  const [theirs = 0, ours = 0] = results.map(median);
  const digits = theirs < 100 ? 2 : 0;
  const cells = [theirs, ours].map((value) => value.toFixed(digits).padStart(12)).join('');
  console.log(`${name.padEnd(28)}${unit.padEnd(18)}${cells}${(ours / theirs).toFixed(2).padStart(9)}`);
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
  console.log(`${''.padEnd(46)}${ENGINES.map((engine) => engine.padStart(12)).join('')}${'ratio'.padStart(9)}`);
  for (const scenario of SCENARIOS.filter(({ name }) => name.includes(values.only))) {
    const results: Record<Engine, Result[]> = { 'node:http2': [], ours: [] };
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const engine of ENGINES) {
        const once =
          scenario.kind === 'idle'
            ? measureIdle(engine, scenario, certificates)
            : measure(engine, scenario, certificates, Number(values.seconds));
        results[engine].push(await once);
      }
    }
    const of = (pick: (result: Result) => number) => ENGINES.map((engine) => results[engine].map(pick));
    row(
      scenario.name,
      scenario.unit,
      of(({ value }) => value),
    );
    const unit = scenario.kind === 'up' ? 'CPU s/GiB' : 'CPU s/100k';
    if (scenario.kind !== 'idle')
      row(
        '',
        unit,
        of(({ cpuSeconds: cpu }) => cpu),
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
