import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toMeshError } from '../../../src/base/errors.ts';
import type { H2Stream } from '../../../src/tunnel/h2-stream.ts';
import { DEFAULT_WINDOW_BYTES, FLAG, FRAME, H2, PREFACE, SETTING } from '../../../src/wire/h2-protocol.ts';
import { resetFrame, settingsAckFrame, settingsFrame, windowUpdateFrame } from '../../../src/wire/h2-write.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { tcpPair } from '../../support/tcp.ts';
import { until } from '../../support/until.ts';
import { Peer, Reader } from './h2-peers.ts';
import { connect } from './raw-client.ts';

const IDS = [1, 3, 5, 7] as const;
type Id = (typeof IDS)[number];
const PLENTY_BYTES = 100_000_000;

/** One stream as a client sees it. */
class Allowed {
  windowBytes = DEFAULT_WINDOW_BYTES;
  readonly chunks: Buffer[] = [];
  hasEnded = false;
}

/** A client that allows the server now more and now less, and finds out when that sends more. */
class Miser {
  readonly streams = new Map<number, Allowed>(IDS.map((id) => [id, new Allowed()]));
  readonly send: (frame: Uint8Array) => void;
  failure: Error | undefined;
  #connectionBytes = DEFAULT_WINDOW_BYTES;
  #initialBytes = DEFAULT_WINDOW_BYTES;
  /** Initial windows that the server has not acknowledged: until then it may go by the one before. */
  readonly #announced: number[] = [];
  #received = Buffer.alloc(0);

  constructor(send: (frame: Uint8Array) => void) {
    this.send = send;
    this.announce(DEFAULT_WINDOW_BYTES);
  }

  announce(bytes: number): void {
    this.#announced.push(bytes);
    this.send(settingsFrame([[SETTING.initialWindowSize, bytes]]));
  }

  /** 0 is the connection. */
  allow(id: Id | 0, bytes: number): void {
    const stream = this.streams.get(id);
    if (stream === undefined) this.#connectionBytes += bytes;
    else stream.windowBytes += bytes;
    this.send(windowUpdateFrame(id, bytes));
  }

  receive(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    for (;;) {
      const length = this.#received.length < 9 ? Number.POSITIVE_INFINITY : this.#received.readUIntBE(0, 3);
      if (this.#received.length < 9 + length) return;
      const [type, isFlagged] = [this.#received[3], ((this.#received[4] ?? 0) & FLAG.endStream) !== 0];
      const payload = this.#received.subarray(9, 9 + length);
      if (type === FRAME.data) this.#data(this.#received.readUInt32BE(5), payload, isFlagged);
      else if (type === FRAME.settings && isFlagged) this.#acknowledged();
      else if (type === FRAME.goaway) assert.fail(`GOAWAY: ${payload.subarray(8).toString()}`);
      this.#received = this.#received.subarray(9 + length);
    }
  }

  #acknowledged(): void {
    const bytes = this.#announced.shift() ?? assert.fail('an acknowledgement of nothing');
    for (const stream of this.streams.values()) stream.windowBytes += bytes - this.#initialBytes;
    this.#initialBytes = bytes;
  }

  #data(id: number, payload: Buffer, isEnd: boolean): void {
    const stream = this.streams.get(id) ?? assert.fail(`DATA on stream ${id}`);
    assert.equal(stream.hasEnded, false, 'DATA after the end');
    stream.windowBytes -= payload.length;
    this.#connectionBytes -= payload.length;
    assert.ok(payload.length === 0 || stream.windowBytes >= 0, `stream ${id} is over by ${-stream.windowBytes}`);
    assert.ok(this.#connectionBytes >= 0, `the connection is over by ${-this.#connectionBytes}`);
    stream.chunks.push(payload);
    stream.hasEnded = isEnd;
  }
}

type Step =
  | { readonly kind: 'write'; readonly id: Id; readonly bytes: number }
  | { readonly kind: 'allow'; readonly id: Id; readonly bytes: number }
  | { readonly kind: 'announce'; readonly bytes: number }
  | { readonly kind: 'allow all'; readonly bytes: number }
  | { readonly kind: 'reset'; readonly id: Id }
  | { readonly kind: 'turn' };

const id = fc.constantFrom(...IDS);
const oneOf = <Kind extends string>(...kinds: Kind[]): fc.Arbitrary<Kind> => fc.constantFrom(...kinds);
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: oneOf('write'), id, bytes: fc.integer({ min: 1, max: 90_000 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: oneOf('allow'), id, bytes: fc.integer({ min: 1, max: 70_000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: oneOf('allow all'), bytes: fc.integer({ min: 1, max: 70_000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: oneOf('announce'), bytes: fc.nat(200_000) }) },
  { weight: 1, arbitrary: fc.record({ kind: oneOf('reset'), id }) },
  { weight: 4, arbitrary: fc.record({ kind: oneOf('turn') }) },
);

/** Does as `steps` say, then allows everything and ends. */
async function run(steps: readonly Step[]): Promise<void> {
  await using pair = await tcpPair();
  const { near, far } = pair;
  near.setNoDelay().on('error', () => undefined);
  const limits = { settings: { burst: 1_000, perSecond: 0 } };
  const streams = new Map<Id, { readonly stream: H2Stream; readonly written: Buffer[] }>();
  const onStream = (stream: H2Stream): void => {
    stream.respond(200);
    new Reader(stream);
    streams.set(IDS[streams.size] ?? assert.fail('one more stream'), { stream, written: [] });
  };
  const server = new Peer('server', far, { clock: new FakeClock(), limits, onStream });
  near.write(PREFACE);
  const miser = new Miser((frame) => near.write(frame));
  near.on('data', (chunk: Buffer) => {
    try {
      miser.receive(chunk);
    } catch (caught) {
      miser.failure ??= toMeshError(caught);
    }
  });
  miser.send(Buffer.concat([settingsAckFrame(), ...IDS.map((each) => connect(each))]));
  while (streams.size < IDS.length) await new Promise(setImmediate);

  /** Of a stream that was reset nothing is said any more. */
  const act = (step: Step, fill: number): void => {
    if (step.kind === 'announce') return miser.announce(step.bytes);
    if (step.kind === 'allow all') return miser.allow(0, step.bytes);
    if (step.kind === 'turn' || !streams.has(step.id)) return;
    if (step.kind === 'allow') return miser.allow(step.id, step.bytes);
    if (step.kind === 'reset') {
      streams.delete(step.id);
      miser.send(resetFrame(step.id, H2.cancel));
      return;
    }
    const chunk = Buffer.alloc(step.bytes, fill);
    streams.get(step.id)?.written.push(chunk);
    streams.get(step.id)?.stream.write(chunk);
  };
  for (const [at, step] of steps.entries()) {
    act(step, at);
    if (step.kind === 'turn') await new Promise(setImmediate);
  }

  miser.announce(PLENTY_BYTES);
  miser.allow(0, PLENTY_BYTES);
  for (const { stream } of streams.values()) stream.end();
  const isOver = (): boolean => streams.keys().every((each) => miser.streams.get(each)?.hasEnded === true);
  for (let turns = 0; turns < 1_000 && !isOver() && miser.failure === undefined; turns++)
    await new Promise(setImmediate);
  await until('all streams have ended', () => miser.failure !== undefined || isOver());
  if (miser.failure !== undefined) throw miser.failure;
  for (const [each, { written }] of streams) {
    const received = Buffer.concat(miser.streams.get(each)?.chunks ?? []);
    assert.ok(received.equals(Buffer.concat(written)), `stream ${each} is not what was written`);
  }
  server.session.destroy();
}

test('windows that a peer opens and shrinks as it likes are never overrun, and in the end all has arrived', {
  timeout: 90_000,
}, async () => {
  await fc.assert(fc.asyncProperty(fc.array(anyStep, { maxLength: 40 }), run), { numRuns: 100 });
});
