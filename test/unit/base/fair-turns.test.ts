import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FairTurns, TurnUser } from '../../../src/base/fair-turns.ts';

const QUANTUM_MS = 0.5;
const RECENT_MS = 50;
const MOST_PIECE_MS = 3;

interface Worker {
  readonly user: TurnUser;
  /** How long its pieces of work are, one after the other, again and again. */
  readonly pieces: readonly number[];
  /** Pieces that it can do in one look at what is ready; the rest comes in later. */
  readonly atOnce: number;
  done: number;
  servedMs: number;
  /** In which looks it was served. */
  looks: number;
}

/** One event loop: looks at what is ready again and again, and tells `turns` of each piece of work that is done. */
class Loop {
  readonly turns = new FairTurns({ quantumMs: QUANTUM_MS, recentMs: RECENT_MS });
  readonly workers: readonly Worker[];
  nowMs = 0;
  mostOwedMs = 0;
  looksWithoutWork = 0;

  constructor(specs: readonly Pick<Worker, 'pieces' | 'atOnce'>[]) {
    this.workers = specs.map((spec) => ({ ...spec, user: new TurnUser(), done: 0, servedMs: 0, looks: 0 }));
  }

  look(isReady: (worker: Worker) => boolean = () => true): void {
    let isAnybodyServed = false;
    for (const worker of this.workers.filter(isReady)) {
      for (let left = worker.atOnce; left > 0 && !worker.user.isHeld; left--) {
        if (left === worker.atOnce) worker.looks += 1;
        isAnybodyServed = true;
        this.#work(worker);
      }
    }
    if (!isAnybodyServed) this.looksWithoutWork += 1;
    if (this.turns.hasHeld) this.turns.endTurn();
  }

  #work(worker: Worker): void {
    const ms = worker.pieces[worker.done % worker.pieces.length] ?? 0;
    worker.done += 1;
    worker.servedMs += ms;
    this.nowMs += ms;
    this.turns.use(worker.user, ms, this.nowMs);
    this.mostOwedMs = Math.max(this.mostOwedMs, -worker.user.creditMs);
    assert.ok(worker.user.creditMs <= QUANTUM_MS);
  }
}

const pieces = fc.array(fc.double({ min: 0.001, max: MOST_PIECE_MS, noNaN: true }), { minLength: 1, maxLength: 5 });
const greedy = fc.record({ pieces, atOnce: fc.constant(1_000_000) });
const any = fc.record({ pieces, atOnce: fc.integer({ min: 1, max: 20 }) });

test('those who always want more get the same, but for a quantum and a piece of work each', () => {
  fc.assert(
    fc.property(fc.array(greedy, { minLength: 2, maxLength: 6 }), (specs) => {
      const loop = new Loop(specs.map((spec) => ({ ...spec, atOnce: 10_000 })));
      // Until everybody was seen nobody is known to be there.
      for (const worker of loop.workers) loop.turns.use(worker.user, 0, 0);
      for (let i = 0; i < 300; i++) loop.look();
      const served = loop.workers.map(({ servedMs }) => servedMs);
      const spreadMs = Math.max(...served) - Math.min(...served);
      assert.ok(spreadMs <= 2 * (QUANTUM_MS + MOST_PIECE_MS), `${served.join(' ')}`);
    }),
    { numRuns: 50 },
  );
});

test('one that wants little is served in every look, whatever the others do', () => {
  fc.assert(
    fc.property(fc.array(any, { minLength: 1, maxLength: 6 }), (others) => {
      const loop = new Loop([...others, { pieces: [0.03], atOnce: 1 }]);
      for (let i = 0; i < 200; i++) loop.look();
      // A look in which it pays back what it used of several quiet turns is one in so many.
      assert.ok((loop.workers.at(-1)?.looks ?? 0) >= 200 * (1 - 2 * (0.03 / QUANTUM_MS)));
    }),
    { numRuns: 100 },
  );
});

/** Held users may all owe something, and one that wants nothing more may be let go first: each look lets one go at least. */
test('somebody who has work does some within as many looks as there are users', () => {
  fc.assert(
    fc.property(
      fc.array(any, { minLength: 1, maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 400 }),
      (specs, ready) => {
        const loop = new Loop(specs);
        for (const bits of ready) {
          const wanting = loop.workers.filter((_, at) => (bits >> at) % 2 === 1);
          if (wanting.length === 0) continue;
          const before = loop.looksWithoutWork;
          for (let looks = 0; looks <= specs.length; looks++) loop.look((worker) => wanting.includes(worker));
          assert.ok(loop.looksWithoutWork - before <= specs.length);
        }
      },
    ),
    {
      numRuns: 100,
      examples: [
        [
          [
            { pieces: [2], atOnce: 1 },
            { pieces: [1.85, 0.08, 1.02, 0.05], atOnce: 6 },
            { pieces: [2.5, 0.001], atOnce: 1 },
          ],
          [2, 7, 2],
        ],
      ],
    },
  );
});

test('nobody owes more than one piece of work', () => {
  fc.assert(
    fc.property(fc.array(any, { minLength: 1, maxLength: 6 }), (specs) => {
      const loop = new Loop(specs);
      for (let i = 0; i < 200; i++) loop.look();
      assert.ok(loop.mostOwedMs <= MOST_PIECE_MS);
    }),
    { numRuns: 100 },
  );
});

test('one that is alone never waits, however much it uses', () => {
  fc.assert(
    fc.property(any, (spec) => {
      const loop = new Loop([spec]);
      for (let i = 0; i < 200; i++) loop.look();
      const [worker] = loop.workers;
      assert.equal(worker?.done, 200 * spec.atOnce);
    }),
    { numRuns: 50 },
  );
});

test('a turn that nobody contests ends with its quantum, so that nothing is kept of what was served in it', () => {
  const turns = new FairTurns({ quantumMs: QUANTUM_MS, recentMs: RECENT_MS });
  const user = new TurnUser();
  const before = turns.turn;
  for (let i = 1; i <= 100; i++) turns.use(user, QUANTUM_MS / 2, i);
  assert.equal(turns.turn - before, 50);
});

test('who was served long ago does not count as one who wants the loop', () => {
  const turns = new FairTurns({ quantumMs: QUANTUM_MS, recentMs: RECENT_MS });
  const [quiet, busy] = [new TurnUser(), new TurnUser()];
  turns.use(quiet, 0.1, 0);
  assert.equal(turns.use(busy, 5, RECENT_MS + 1), false);
  turns.use(quiet, 0.1, RECENT_MS + 2);
  assert.equal(turns.use(busy, 5, RECENT_MS + 7), true);
});

test('a loop that had nothing to do begins anew: small amounts of different times do not add up', () => {
  const turns = new FairTurns({ quantumMs: QUANTUM_MS, recentMs: RECENT_MS });
  const [one, other] = [new TurnUser(), new TurnUser()];
  for (let i = 0; i < 100; i++) {
    assert.equal(turns.use(one, 0.4, i), false);
    assert.equal(turns.use(other, 0.4, i), false);
    turns.rested();
  }
});

test('what one owed while it was held is paid before it goes on', () => {
  const turns = new FairTurns({ quantumMs: QUANTUM_MS, recentMs: RECENT_MS });
  const [modest, greedy] = [new TurnUser(), new TurnUser()];
  turns.use(modest, 0.01, 0);
  assert.equal(turns.use(greedy, 1.2, 1), true);
  const heldTurns: number[] = [];
  for (let turn = 1; greedy.isHeld; turn++) {
    turns.use(modest, 0.01, 1 + turn);
    turns.endTurn();
    heldTurns.push(turn);
  }
  assert.deepEqual(heldTurns, [1, 2]);
});
