import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LaneBudgets } from '../../../../src/agent/workers/lane-budgets.ts';
import type { Budget } from '../../../../src/model/budget.ts';

const STANDARD: Budget = { connections: 1_000, handshakesPerSecond: 100, bufferedBytes: 4_096, loopShare: 1 };
const OWN: Budget = { ...STANDARD, connections: 50 };
const WORKERS = 2;
const MAX_CONNECTIONS = 900;

function budgets(): LaneBudgets {
  const made = new LaneBudgets(WORKERS, MAX_CONNECTIONS);
  made.table = { standard: STANDARD, byPod: [['own', OWN]] };
  return made;
}

function of(made: LaneBudgets, lane: 'common' | 'greedy', uid: string): Budget | undefined {
  const table = made.of(lane);
  return new Map(table?.byPod).get(uid) ?? table?.standard;
}

test('nothing is bounded before anybody says what', () => {
  const made = new LaneBudgets(WORKERS, MAX_CONNECTIONS);
  made.leave('a', { lane: 'common', connections: 3 });
  assert.equal(made.of('greedy'), undefined);
});

test('either lane has the whole budget of a pod that is in one of them, in equal parts', () => {
  const made = budgets();
  for (const lane of ['common', 'greedy'] as const) {
    assert.deepEqual(of(made, lane, 'a'), {
      ...STANDARD,
      connections: 500,
      handshakesPerSecond: 50,
      bufferedBytes: 2_048,
    });
    assert.equal(of(made, lane, 'own')?.connections, 25);
  }
});

for (const uid of ['a', 'own']) {
  const connections = uid === 'own' ? OWN.connections : MAX_CONNECTIONS;
  test(`what "${uid}" has open in the lane that it left is taken off what it may open in the other`, () => {
    const made = budgets();
    assert.equal(made.leave(uid, { lane: 'common', connections: 10 }), true);
    assert.equal(of(made, 'greedy', uid)?.connections, (connections - 10) / WORKERS);
    assert.equal(of(made, 'greedy', 'b')?.connections, STANDARD.connections / WORKERS);
    const buffered = (['common', 'greedy'] as const).map((lane) => of(made, lane, uid)?.bufferedBytes ?? 0);
    assert.equal(WORKERS * (buffered[0] ?? 0) + WORKERS * (buffered[1] ?? 0), STANDARD.bufferedBytes);
  });
}

test('a pod that has filled its budget in the one lane may open one connection per worker in the other', () => {
  const made = budgets();
  made.leave('own', { lane: 'greedy', connections: 60 });
  assert.equal(of(made, 'common', 'own')?.connections, 1);
});

test('it has all of it again when nothing is left, and only changes are news', () => {
  const made = budgets();
  made.leave('a', { lane: 'common', connections: 10 });
  assert.equal(made.leave('a', { lane: 'common', connections: 10 }), false);
  assert.equal(made.leave('a', { lane: 'common', connections: 9 }), true);
  assert.equal(made.leave('a', undefined), true);
  assert.equal(made.leave('a', undefined), false);
  assert.equal(of(made, 'greedy', 'a')?.connections, STANDARD.connections / WORKERS);
});
