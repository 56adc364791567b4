/** One end of a connection that sends a known stream of bytes and checks what it receives, with moods of its own. */
import type net from 'node:net';

/** Bytes that look random, made once; streams are slices of it. */
const POOL = makePool(8 * 1024 * 1024);
const PRIME_STEP = 1_000_003;
const LARGEST_CHUNK = 256 * 1024;

/** A small generator (mulberry32), so that a failing run can be repeated from its seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Mood {
  /** Bytes to send. */
  readonly bytes: number;
  /** Which stream to send, and which to expect. */
  readonly key: number;
  readonly peerKey: number;
  /** Send nothing before the other side has ended its half. */
  readonly speaksLast: boolean;
  /** Longest rest between reads, milliseconds; 0 reads as fast as it can. */
  readonly restMs: number;
  /** Reset the connection after so many bytes sent. */
  readonly resetAfter?: number | undefined;
}

export interface Received {
  readonly bytes: number;
  /** Position of the first byte that is not the one sent; `undefined` when there is none. */
  readonly wrongAt: number | undefined;
  /** `end`: the other side ended its half in order. */
  readonly how: 'end' | 'reset' | 'closed';
}

/** How far one end has come; what a report of a stuck connection shows. */
export interface Progress {
  sentBytes: number;
  receivedBytes: number;
  state: string;
}

/** Runs one end to the end of both halves, or to a reset. */
export async function transfer(
  socket: net.Socket,
  mood: Mood,
  random: () => number,
  progress: Progress,
): Promise<Received> {
  const received = receive(socket, mood, random, progress);
  const begin = (): Promise<void> => send(socket, mood, progress, random);
  const sent = mood.speaksLast ? received.then(begin) : begin();
  const [result] = await Promise.all([received, sent]);
  progress.state = 'both halves done';
  if (!socket.closed) await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  progress.state = 'closed';
  return result;
}

function receive(
  socket: net.Socket,
  { restMs, peerKey }: Mood,
  random: () => number,
  progress: Progress,
): Promise<Received> {
  const { promise, resolve } = Promise.withResolvers<Received>();
  let bytes = 0;
  let wrongAt: number | undefined;
  const done = (how: Received['how']): void => resolve({ bytes, wrongAt, how });
  socket.on('data', (chunk: Buffer) => {
    if (!isPartOf(peerKey, bytes, chunk)) wrongAt ??= bytes;
    bytes += chunk.length;
    progress.receivedBytes = bytes;
    if (restMs === 0 || random() > 0.05) return;
    socket.pause();
    setTimeout(() => socket.resume(), random() * restMs);
  });
  socket.on('end', () => done('end'));
  socket.on('error', () => done('reset'));
  socket.on('close', () => done('closed'));
  socket.resume();
  return promise;
}

async function send(
  socket: net.Socket,
  { bytes, key, resetAfter }: Mood,
  progress: Progress,
  random: () => number,
): Promise<void> {
  const until = resetAfter ?? bytes;
  for (let at = 0; at < until && !socket.destroyed; ) {
    const slice = sliceAt(key, at, Math.min(until - at, 1 + Math.floor(random() ** 2 * LARGEST_CHUNK)));
    at += slice.length;
    progress.sentBytes = at;
    if (!socket.write(slice)) await drained(socket);
  }
  if (resetAfter === undefined) socket.end();
  else socket.resetAndDestroy();
  progress.state = 'sent all';
}

function drained(socket: net.Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    socket.off('drain', done).off('close', done);
    resolve();
  };
  socket.on('drain', done).on('close', done);
  if (socket.destroyed) done();
  return promise;
}

/** Every octet of `chunk` is the one that stream `key` has at this position. */
function isPartOf(key: number, at: number, chunk: Buffer): boolean {
  for (let done = 0; done < chunk.length; ) {
    const slice = sliceAt(key, at + done, chunk.length - done);
    if (!chunk.subarray(done, done + slice.length).equals(slice)) return false;
    done += slice.length;
  }
  return true;
}

function sliceAt(key: number, at: number, most: number): Uint8Array {
  const start = (key * PRIME_STEP + at) % POOL.length;
  return POOL.subarray(start, Math.min(POOL.length, start + most));
}

function makePool(bytes: number): Uint8Array {
  const random = seededRandom(1);
  const words = new Uint32Array(bytes / 4);
  for (let i = 0; i < words.length; i++) words[i] = random() * 2 ** 32;
  return new Uint8Array(words.buffer);
}
