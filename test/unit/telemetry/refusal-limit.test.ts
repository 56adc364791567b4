import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EarlyRefusal } from '../../../src/telemetry/traffic.ts';
import { trafficFixture } from './traffic-fixture.ts';

const early: EarlyRefusal = {
  direction: 'inbound',
  podUid: 'pod-1',
  src: { ip: '10.42.1.7', port: 40_000 },
  dst: { ip: '10.42.2.9', port: 15_008 },
  refusal: { code: 'CV-LIMIT', text: 'too many' },
};

function flood(count: number, changes: Partial<EarlyRefusal> = {}) {
  const fixture = trafficFixture({ format: 'json' });
  const refuse = (n: number, of: Partial<EarlyRefusal> = changes): void => {
    for (let i = 0; i < n; i++) fixture.traffic.refused({ ...early, ...of });
  };
  refuse(count);
  const lines = (): Record<string, unknown>[] =>
    fixture.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const told = (): Record<string, unknown>[] => lines().filter(({ message }) => message === 'connection failed');
  const sums = (): Record<string, unknown>[] =>
    lines().filter(({ message }) => message === 'connections failed, too many to log each');
  return { ...fixture, refuse, told, sums };
}

test('of a flood of early refusals the first hundred have a line and a record each, and all are counted', () => {
  const { traffic, told, sums } = flood(5_000);
  assert.equal(told().length, 100);
  assert.equal(traffic.recentRefusals().length, 100);
  assert.equal(traffic.totals().refused['CV-LIMIT'], 5_000);
  assert.deepEqual(sums(), []);
});

test('a second later one line tells how many there were besides, of what and by whom last', () => {
  const { clock, refuse, sums } = flood(100);
  refuse(900, { src: { ip: '10.42.3.3', port: 5 } });
  clock.advance(1_000);
  assert.equal(sums().length, 1);
  const [sum = {}] = sums();
  const { count, direction, reason, error } = sum;
  assert.deepEqual(
    { count, direction, reason, error },
    { count: 900, direction: 'inbound', reason: 'CV-LIMIT', error: 'too many' },
  );
  assert.equal(sum['last.src.addr'], '10.42.3.3:5');
  assert.equal(sum['dst.addr'], '10.42.2.9:15008');
  clock.advance(60_000);
  assert.equal(sums().length, 1);
});

test('ten a second are told one by one, however long it lasts', () => {
  const { clock, refuse, told, sums } = flood(100);
  for (let second = 0; second < 30; second++) {
    clock.advance(1_000);
    refuse(10);
  }
  assert.equal(told().length, 400);
  assert.deepEqual(sums(), []);
});

test('a flood of one pod or one reason hides no line of another', () => {
  const { refuse, told } = flood(1_000);
  refuse(1, { podUid: 'pod-2' });
  refuse(1, { refusal: { code: 'CV-METHOD', text: 'no certificate' } });
  assert.equal(told().length, 102);
});

test('what is only counted is told when the thread ends', () => {
  const { traffic, sums } = flood(150);
  traffic.endAll({ code: 'CV-BUG', text: 'over' });
  assert.deepEqual(
    sums().map(({ count }) => count),
    [50],
  );
});

test('more pods than are kept apart are all told of', () => {
  const { refuse, told, sums } = flood(150);
  for (let i = 0; i < 1_100; i++) refuse(1, { podUid: `many-${i}` });
  assert.equal(told().length, 1_200);
  assert.deepEqual(
    sums().map(({ count }) => count),
    [50],
  );
});
