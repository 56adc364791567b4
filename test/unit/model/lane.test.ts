import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  attackedLane,
  GREEDY_FOR_MS,
  type Lane,
  type LaneState,
  type LoopUse,
  MOST_STAYS,
  NO_USE,
  newLaneState,
  nextLane,
  SETTLED_MS,
} from '../../../src/model/lane.ts';

const MODEST_FOR_MS = 30_000;
const LIMITS = { greedyShare: 0.25, modestForMs: MODEST_FOR_MS };
const LOOK_MS = 1_000;
const GREEDY: LoopUse = { share: 0.8, heldPerSecond: 1_000 };
const MODEST: LoopUse = { share: 0.05, heldPerSecond: 0 };
/** Less than greedy, more than modest. */
const BETWEEN: LoopUse = { share: 0.2, heldPerSecond: 500 };

/** A pod, and the looks at it, one a second. */
class Watched {
  #state: LaneState = newLaneState(0);
  #nowMs = 0;

  get lane(): Lane {
    return this.#state.lane;
  }

  for(ms: number, use: LoopUse): this {
    for (const endMs = this.#nowMs + ms; this.#nowMs < endMs; ) {
      this.#nowMs += LOOK_MS;
      this.#state = nextLane(this.#state, use, this.#nowMs, LIMITS);
    }
    return this;
  }

  attacked(): this {
    this.#state = attackedLane(this.#state, this.#nowMs, LIMITS);
    return this;
  }

  /** How long it has to be modest until it is back, ms. */
  penance(): number {
    const startedMs = this.#nowMs;
    while (this.lane === 'greedy') this.for(LOOK_MS, MODEST);
    return this.#nowMs - startedMs - LOOK_MS;
  }
}

const LONG_MS = GREEDY_FOR_MS + LOOK_MS;
const settled = (): Watched => new Watched().for(SETTLED_MS, NO_USE);
const greedy = (): Watched => settled().for(LONG_MS, GREEDY);

const rows: readonly { readonly claim: string; readonly pod: Watched; readonly lane: Lane }[] = [
  { claim: 'a new pod is in the common lane', pod: new Watched(), lane: 'common' },
  { claim: 'who uses much and keeps others waiting is greedy', pod: greedy(), lane: 'greedy' },
  {
    claim: 'a pod that has just come is not judged',
    pod: new Watched().for(SETTLED_MS + GREEDY_FOR_MS - LOOK_MS, GREEDY),
    lane: 'common',
  },
  {
    claim: 'a burst does not make a pod greedy',
    pod: settled().for(GREEDY_FOR_MS, GREEDY).for(LOOK_MS, MODEST).for(GREEDY_FOR_MS, GREEDY),
    lane: 'common',
  },
  {
    claim: 'who has the loops for itself may use all of them',
    pod: new Watched().for(600_000, { share: 3.9, heldPerSecond: 0 }),
    lane: 'common',
  },
  {
    claim: 'a turn that is over now and then is chance',
    pod: new Watched().for(600_000, { share: 0.9, heldPerSecond: 9 }),
    lane: 'common',
  },
  {
    claim: 'who uses little is not greedy, however many turns it loses',
    pod: new Watched().for(600_000, { share: 0.24, heldPerSecond: 5_000 }),
    lane: 'common',
  },
  { claim: 'a greedy pod stays while it uses much', pod: greedy().for(3_600_000, GREEDY), lane: 'greedy' },
  {
    claim: 'a greedy pod stays while it uses much, whether or not others wait now',
    pod: greedy().for(3_600_000, { share: 0.8, heldPerSecond: 0 }),
    lane: 'greedy',
  },
  { claim: 'a greedy pod stays while it is hardly modest', pod: greedy().for(3_600_000, BETWEEN), lane: 'greedy' },
  { claim: 'a pause is not yet modesty', pod: greedy().for(MODEST_FOR_MS, MODEST), lane: 'greedy' },
  {
    claim: 'modesty counts without interruption',
    pod: greedy().for(MODEST_FOR_MS, MODEST).for(LOOK_MS, GREEDY).for(MODEST_FOR_MS, MODEST),
    lane: 'greedy',
  },
  {
    claim: 'a pod that has become modest comes back',
    pod: greedy().for(MODEST_FOR_MS + LOOK_MS, MODEST),
    lane: 'common',
  },
  { claim: 'a pod that is attacked changes at once, however new it is', pod: new Watched().attacked(), lane: 'greedy' },
  {
    claim: 'a pod that is attacked stays until it has been left in peace for long enough',
    pod: settled().attacked().for(MODEST_FOR_MS, NO_USE).attacked().for(MODEST_FOR_MS, NO_USE),
    lane: 'greedy',
  },
  {
    claim: 'a pod that is attacked comes back after that',
    pod: settled()
      .attacked()
      .for(MODEST_FOR_MS + LOOK_MS, NO_USE),
    lane: 'common',
  },
  { claim: 'a pod that does nothing is modest', pod: greedy().for(MODEST_FOR_MS + LOOK_MS, NO_USE), lane: 'common' },
];

for (const { claim, pod, lane } of rows) test(claim, () => assert.equal(pod.lane, lane));

test('a pod that is greedy again and again has to be modest for longer each time, within bounds', () => {
  const pod = settled();
  const penances = Array.from({ length: 8 }, () => pod.for(LONG_MS, GREEDY).penance());
  assert.deepEqual(
    penances.map((ms) => ms / MODEST_FOR_MS),
    [1, 2, 4, 8, 16, 30, 30, 30],
  );
});

test('a pod that was good for long is forgiven', () => {
  const pod = greedy();
  pod.penance();
  assert.equal(
    pod
      .for(MOST_STAYS * MODEST_FOR_MS, MODEST)
      .for(LONG_MS, GREEDY)
      .penance(),
    MODEST_FOR_MS,
  );
});

test('a look that changes nothing makes no new state', () => {
  const state = newLaneState(0);
  assert.equal(nextLane(state, GREEDY, SETTLED_MS - LOOK_MS, LIMITS), state);
  assert.equal(nextLane(state, MODEST, SETTLED_MS, LIMITS), state);
  const watched = nextLane(state, GREEDY, SETTLED_MS, LIMITS);
  assert.equal(nextLane(watched, GREEDY, SETTLED_MS + LOOK_MS, LIMITS), watched);
});
