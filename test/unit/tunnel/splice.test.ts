import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Splice, type SpliceEnd, type SplicePipe } from '../../../src/tunnel/splice.ts';

/** A kernel of two sockets and one pipe, in numbers: every byte is somewhere. */
class Kernel {
  /** Ready at the source. */
  ready = 0;
  /** What the sink takes before it says to wait. */
  room = 0;
  arrived = 0;
  pipesOut = 0;
  hasPipes = true;
  /** What the sink was told to wait for it in a pipe. */
  waiting = 0;
  readonly failed: string[] = [];
  sourceErrno: string | undefined;
  sinkErrno: string | undefined;
  /** Written by the ordinary way, waiting for room. */
  #piece: { bytes: number; onTaken: () => void } | undefined;
  readonly #capacity: number;

  constructor(capacity = 256 * 1024) {
    this.#capacity = capacity;
  }

  get queued(): number {
    return this.#piece?.bytes ?? 0;
  }

  takePipe = (): SplicePipe | undefined => {
    if (!this.hasPipes) return undefined;
    this.pipesOut += 1;
    return new HandPipe(this, this.#capacity);
  };

  source: SpliceEnd = this.#end(1, () => false);
  sink: SpliceEnd = this.#end(2, () => this.#piece === undefined);

  /** The reader took some: the ordinary write goes on first. */
  read(bytes: number): void {
    this.room += bytes;
    const piece = this.#piece;
    if (piece === undefined) return;
    const taken = this.take(piece.bytes);
    piece.bytes -= taken;
    if (piece.bytes > 0) return;
    this.#piece = undefined;
    piece.onTaken();
  }

  take(bytes: number): number {
    const taken = Math.min(bytes, this.room);
    this.room -= taken;
    this.arrived += taken;
    return taken;
  }

  #end(fd: number, isFlushed: () => boolean): SpliceEnd {
    return {
      fd,
      get isFlushed() {
        return isFlushed();
      },
      writeThen: (piece, onTaken) => {
        assert.equal(this.#piece, undefined, 'two pieces would change their order');
        this.#piece = { bytes: piece.length, onTaken };
        this.read(0);
      },
      waits: (pipedBytes) => {
        this.waiting = pipedBytes;
      },
      fail: (errno) => void this.failed.push(`${fd} ${errno}`),
    };
  }
}

class HandPipe implements SplicePipe {
  heldBytes = 0;
  readonly #kernel: Kernel;
  readonly #capacity: number;

  constructor(kernel: Kernel, capacity: number) {
    this.#kernel = kernel;
    this.#capacity = capacity;
  }

  fill() {
    const kernel = this.#kernel;
    const bytes = Math.min(kernel.ready, this.#capacity - this.heldBytes);
    if (bytes === 0 && kernel.sourceErrno !== undefined) return { errno: kernel.sourceErrno };
    kernel.ready -= bytes;
    this.heldBytes += bytes;
    return bytes;
  }

  drain() {
    if (this.#kernel.sinkErrno !== undefined) return { errno: this.#kernel.sinkErrno };
    const bytes = this.#kernel.take(this.heldBytes);
    this.heldBytes -= bytes;
    return bytes;
  }

  read(target: Uint8Array): number {
    const bytes = Math.min(target.length, this.heldBytes);
    this.heldBytes -= bytes;
    return bytes;
  }

  giveBack(): void {
    this.#kernel.pipesOut -= 1;
  }
}

function spliceOf(kernel: Kernel) {
  const seen = { flushed: 0 };
  const ends = { source: kernel.source, sink: kernel.sink };
  return { seen, splice: new Splice(ends, kernel.takePipe, () => (seen.flushed += 1)) };
}

const MIB = 1024 * 1024;

test('a turn moves what is ready, and gives its pipe back', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 500_000, room: 10 * MIB });
  const { splice } = spliceOf(kernel);

  assert.equal(splice.turn(), 500_000);
  assert.deepEqual([kernel.arrived, kernel.pipesOut, splice.isHolding], [500_000, 0, false]);
});

test('a turn ends after a MiB, however much more there is', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 100 * MIB, room: 100 * MIB });

  assert.equal(spliceOf(kernel).splice.turn(), MIB);
});

test('what a sink does not take is held, and goes on by itself as the reader reads', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 300_000, room: 100_000 });
  const { splice, seen } = spliceOf(kernel);

  const moved = splice.turn();
  assert.equal(kernel.arrived, 100_000);
  assert.equal(splice.heldBytes + kernel.queued, moved - 100_000);
  assert.deepEqual([splice.isHolding, seen.flushed, kernel.waiting], [true, 0, splice.heldBytes]);

  kernel.read(10 * MIB);
  assert.equal(kernel.arrived, moved);
  assert.deepEqual([splice.isHolding, kernel.waiting, seen.flushed, kernel.pipesOut], [false, 0, 1, 0]);
});

test('nothing is moved past bytes that still wait in the sink', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 1_000, room: 0 });
  kernel.sink.writeThen(new Uint8Array(10), () => {});

  assert.equal(spliceOf(kernel).splice.turn(), 0);
  assert.equal(kernel.ready, 1_000);
});

test('without a pipe nothing moves and nothing is lost', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 1_000, room: 1_000, hasPipes: false });

  assert.equal(spliceOf(kernel).splice.turn(), 0);
  assert.equal(kernel.ready, 1_000);
});

test('a source that breaks is told so, after all it still had was moved', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 1_000, room: 1_000, sourceErrno: 'ECONNRESET' });

  assert.equal(spliceOf(kernel).splice.turn(), 1_000);
  assert.deepEqual([kernel.arrived, kernel.failed, kernel.pipesOut], [1_000, ['1 ECONNRESET'], 0]);
});

test('a sink that breaks is told so, and the pipe is given back when the connection closes', () => {
  const kernel = new Kernel();
  Object.assign(kernel, { ready: 300_000, room: 0, sinkErrno: 'EPIPE' });
  const { splice, seen } = spliceOf(kernel);

  splice.turn();
  splice.close();
  kernel.read(MIB);
  assert.deepEqual([kernel.failed[0], kernel.pipesOut, seen.flushed], ['2 EPIPE', 0, 0]);
});

test('whatever the order of arrivals and reads, every byte arrives once and no pipe stays out', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('arrive' as const), bytes: fc.nat(2 * MIB) }),
    fc.record({ kind: fc.constant('read' as const), bytes: fc.nat(MIB) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: 1_024, max: MIB }), (steps, capacity) => {
      const kernel = new Kernel(capacity);
      const { splice } = spliceOf(kernel);
      let sent = 0;
      let moved = 0;
      const turn = (): void => {
        while (!splice.isHolding && kernel.ready > 0) moved += splice.turn();
      };
      for (const { kind, bytes } of steps) {
        if (kind === 'read') kernel.read(bytes);
        else {
          kernel.ready += bytes;
          sent += bytes;
        }
        turn();
        assert.equal(kernel.ready + splice.heldBytes + kernel.queued + kernel.arrived, sent);
      }
      kernel.read(sent + 1);
      turn();
      assert.deepEqual([kernel.arrived, moved, kernel.pipesOut], [sent, sent, 0]);
    }),
  );
});
