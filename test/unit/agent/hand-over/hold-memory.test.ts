import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { boundHoldMemory } from '../../../../src/agent/hand-over/hold-memory.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

const MAX_BYTES = 1_000;
const LOOK_MS = 5_000;

/** A process with `live` connections of ten bytes each, and garbage. */
function holding({ live = 0, garbageBytes = 0 }) {
  const process = { live, garbageBytes, trims: 0, said: [] as string[] };
  const clock = new FakeClock();
  const bound = boundHoldMemory(MAX_BYTES, {
    clock,
    log: { warn: (message) => void process.said.push(message) },
    rssBytes: () => process.garbageBytes + 10 * process.live,
    dataPlane: {
      views: { totals: () => ({ live: process.live, opened: 0, refused: {} }) },
      trim: async () => {
        process.trims += 1;
        process.garbageBytes = 0;
      },
      shed: async (count) => {
        process.live -= count;
        return count;
      },
    },
  });
  const look = async (): Promise<void> => {
    clock.advance(LOOK_MS);
    for (let turns = 0; turns < 5; turns++) await nextTurn();
  };
  return { process, look, bound };
}

test('within the bound nothing is done', async () => {
  const { process, look } = holding({ live: 100 });
  await look();
  assert.deepEqual([process.live, process.trims, process.said], [100, 0, []]);
});

test('garbage goes before connections do', async () => {
  const { process, look } = holding({ live: 100, garbageBytes: 5_000 });
  await look();
  assert.deepEqual([process.live, process.trims, process.said], [100, 1, []]);
});

test('over the bound an eighth of the connections goes at each look, until it is kept', async () => {
  const { process, look } = holding({ live: 120 });
  await look();
  assert.equal(process.live, 105);
  await look();
  assert.equal(process.live, 91);
  await look();
  assert.equal(process.live, 91);
  assert.equal(process.said.length, 2);
});

test('when it is over nothing is looked at any more', async () => {
  const { process, look, bound } = holding({ live: 120 });
  bound[Symbol.dispose]();
  await look();
  assert.equal(process.live, 120);
});
