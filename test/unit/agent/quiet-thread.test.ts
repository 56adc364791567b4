import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QuietThread } from '../../../src/agent/quiet-thread.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const MIB = 1024 * 1024;

/** A thread whose heap is what a test says, and 20 MiB after a collection. */
class World {
  readonly clock = new FakeClock();
  heap = 20 * MIB;
  collections = 0;
  #cpuMs = 0;

  constructor() {
    new QuietThread({
      clock: this.clock,
      cpuMs: () => this.#cpuMs,
      heldBytes: () => this.heap,
      mostBytes: 160 * MIB,
      giveBack: async () => {
        this.collections += 1;
        this.heap = Math.min(this.heap, 20 * MIB);
      },
    });
  }

  /** So many seconds pass, of which the thread works a share. */
  async pass(seconds: number, share: number): Promise<void> {
    for (let second = 0; second < seconds; second++) {
      this.#cpuMs += 1_000 * share;
      this.clock.advance(1_000);
      await Promise.resolve();
      await Promise.resolve();
    }
  }
}

test('memory is given back once, when a thread that has worked becomes quiet', async () => {
  const world = new World();
  await world.pass(10, 0.9);
  world.heap = 80 * MIB;
  await world.pass(5, 0.9);
  assert.equal(world.collections, 0);
  await world.pass(60, 0.01);
  assert.equal(world.collections, 1);
});

test('a thread that is never quiet is never held up', async () => {
  const world = new World();
  world.heap = 80 * MIB;
  await world.pass(120, 0.3);
  assert.equal(world.collections, 0);
});

test('a thread that did nothing, or whose heap did not grow, is left alone', async () => {
  const idle = new World();
  idle.heap = 80 * MIB;
  await idle.pass(120, 0.001);
  assert.equal(idle.collections, 0);
  const small = new World();
  await small.pass(30, 0.9);
  small.heap = 27 * MIB;
  await small.pass(120, 0.01);
  assert.equal(small.collections, 0);
});

test('a heap so large that looking at it would be felt is left to V8', async () => {
  const world = new World();
  await world.pass(30, 0.9);
  world.heap = 300 * MIB;
  await world.pass(120, 0.01);
  assert.equal(world.collections, 0);
});

test('each burst is followed by a collection of its own', async () => {
  const world = new World();
  for (let burst = 1; burst <= 3; burst++) {
    await world.pass(10, 0.9);
    world.heap = 80 * MIB;
    await world.pass(30, 0.01);
    assert.equal(world.collections, burst);
  }
});
