import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Budget } from '../../../src/model/budget.ts';
import { Admission, MAX_DELAY_MS } from '../../../src/proxy/admission.ts';
import { systemLoopTime } from '../../../src/sys/loop-time.ts';
import { LoopShares } from '../../../src/tunnel/loop-shares.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const BUDGET: Budget = { connections: 2, handshakesPerSecond: 2, bufferedBytes: 1_000, loopShare: 1 };

function admission(change: Partial<Budget> = {}) {
  const clock = new FakeClock();
  const share = new LoopShares({ time: systemLoopTime, clock }, undefined).open();
  const state = { held: 0 };
  const made = new Admission({ ...BUDGET, ...change }, { clock, share, held: () => state.held });
  /** As a pod does: counted from the moment it asks. */
  const ask = (kind: 'connection' | 'handshake' = 'connection'): Promise<string> => {
    const asked = made.enter(kind);
    state.held += 1;
    if (asked === undefined) return Promise.resolve('at once');
    return asked.then(
      () => `after ${clock.monotonicMs()} ms`,
      (error: { code: string }) => {
        state.held -= 1;
        return error.code;
      },
    );
  };
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 20) {
      clock.advance(20);
      for (let i = 0; i < 10; i++) await Promise.resolve();
    }
  };
  return { made, clock, share, state, ask, pass };
}

test('over the budget of connections a new one waits until another ends, in order', async () => {
  const { state, ask, pass } = admission();
  assert.deepEqual(await Promise.all([ask(), ask()]), ['at once', 'at once']);
  const [third, fourth] = [ask(), ask()];
  await pass(100);
  state.held -= 1;
  await pass(20);
  state.held -= 1;
  await pass(20);
  assert.deepEqual(await Promise.all([third, fourth]), ['after 120 ms', 'after 140 ms']);
});

test('a connection that has waited long enough is refused, and one that asks then waits anew', async () => {
  const { ask, pass } = admission();
  await Promise.all([ask(), ask()]);
  const third = ask();
  await pass(MAX_DELAY_MS / 2);
  const fourth = ask();
  await pass(MAX_DELAY_MS / 2);
  assert.equal(await third, 'CV-BUDGET-CONNECTIONS');
  await pass(MAX_DELAY_MS / 2);
  assert.equal(await fourth, 'CV-BUDGET-CONNECTIONS');
});

test('handshakes come as fast as their budget says, then are refused, and hold up no connection', async () => {
  const { ask, pass, state } = admission();
  const handshakes = Array.from({ length: 6 }, () => ask('handshake'));
  state.held = 0;
  assert.equal(await ask(), 'at once');
  await pass(2 * MAX_DELAY_MS);
  const answers = await Promise.all(handshakes);
  assert.deepEqual(answers.slice(0, 2), ['at once', 'at once']);
  assert.deepEqual(answers.slice(4), ['CV-BUDGET-HANDSHAKES', 'CV-BUDGET-HANDSHAKES']);
  assert.deepEqual(answers.slice(2, 4), ['after 500 ms', 'after 1000 ms']);
});

test('while buffers are full nothing new begins', async () => {
  const { share, ask, pass } = admission();
  share.bufferedBytes = 1_000;
  const [one, other] = [ask(), ask('handshake')];
  await pass(100);
  share.bufferedBytes = 999;
  await pass(20);
  assert.deepEqual(await Promise.all([one, other]), ['after 120 ms', 'after 120 ms']);
  share.bufferedBytes = 1_000;
  const refused = ask();
  await pass(MAX_DELAY_MS);
  assert.equal(await refused, 'CV-BUDGET-BUFFERS');
});

test('a budget that is raised lets those go on who wait, one that is lowered ends nothing', async () => {
  const { made, ask, pass, state } = admission();
  await Promise.all([ask(), ask()]);
  const third = ask();
  made.budget = { ...BUDGET, connections: 3 };
  await pass(20);
  assert.equal(await third, 'after 20 ms');
  made.budget = { ...BUDGET, connections: 1 };
  assert.equal(state.held, 3);
});

test('no more than 1,024 wait', async () => {
  const { ask, pass } = admission();
  await Promise.all([ask(), ask()]);
  const waiting = Array.from({ length: 1_024 }, () => ask());
  assert.equal(await ask(), 'CV-BUDGET-CONNECTIONS');
  await pass(MAX_DELAY_MS);
  assert.deepEqual(new Set(await Promise.all(waiting)), new Set(['CV-BUDGET-CONNECTIONS']));
});
