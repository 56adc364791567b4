import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Offenders } from '../../../src/proxy/offenders.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const BAD = '10.0.0.66';
const NOBODY = (): void => {};

test('each cut tunnel makes the next connection wait twice as long, up to 4 s, and others not at all', () => {
  const offenders = new Offenders(new FakeClock(), NOBODY);
  assert.equal(offenders.delayMs(BAD), 0);
  const delays = Array.from({ length: 9 }, () => offenders.cut(BAD));
  assert.deepEqual(delays, [100, 200, 400, 800, 1_600, 3_200, 4_000, 4_000, 4_000]);
  assert.equal(offenders.delayMs(BAD), 4_000);
  assert.equal(offenders.delayMs('10.0.0.1'), 0);
});

test('one cut tunnel is forgiven in 5 s, any number of them in 35 s', () => {
  const clock = new FakeClock();
  const offenders = new Offenders(clock, NOBODY);
  offenders.cut(BAD);
  offenders.cut(BAD);
  clock.advance(5_000);
  assert.equal(offenders.delayMs(BAD), 100);
  clock.advance(5_000);
  assert.equal(offenders.delayMs(BAD), 0);
  for (let i = 0; i < 1_000; i++) offenders.cut(BAD);
  clock.advance(30_000);
  assert.equal(offenders.delayMs(BAD), 100);
  clock.advance(5_000);
  assert.equal(offenders.delayMs(BAD), 0);
});

test('seven failed handshakes are nothing, three a second are borne for ever, a hundred at once are not', () => {
  const clock = new FakeClock();
  const offenders = new Offenders(clock, NOBODY);
  for (let i = 0; i < 7; i++) offenders.failed(BAD);
  assert.equal(offenders.delayMs(BAD), 0);
  for (let i = 0; i < 400; i++) {
    clock.advance(334);
    offenders.failed(BAD);
    assert.equal(offenders.delayMs(BAD), 0);
  }
  for (let i = 0; i < 100; i++) offenders.failed(BAD);
  assert.equal(offenders.delayMs(BAD), 3_200);
});

test('handshakes that are not done yet count as failed ones, as long as they are not', () => {
  const clock = new FakeClock();
  const offenders = new Offenders(clock, NOBODY);
  const delays = [0, 7, 8, 24, 40, 56, 72, 104, 512].map((inProgress) => offenders.delayMs(BAD, inProgress));
  assert.deepEqual(delays, [0, 0, 100, 200, 400, 800, 1_600, 4_000, 4_000]);
  offenders.cut(BAD);
  assert.equal(offenders.delayMs(BAD, 16), 200);
  clock.advance(60_000);
  assert.equal(offenders.delayMs(BAD, 8), 100);
  assert.equal(offenders.delayMs(BAD), 0);
});

/** What happened to a pod, and how often that was told as an attack: `new` or `on`. */
function attacks(clock: FakeClock, happen: (offenders: Offenders) => void): readonly string[] {
  const told: string[] = [];
  happen(new Offenders(clock, (isNew) => told.push(isNew ? 'new' : 'on')));
  return told;
}

const times = (count: number, act: () => unknown): void => {
  for (let i = 0; i < count; i++) act();
};

for (const { claim, happen, told } of [
  {
    claim: 'fifty silent connections at once are borne, one more is an attack',
    happen: (offenders: Offenders) => times(51, () => offenders.silent()),
    told: ['new'],
  },
  { claim: 'fifty are none', happen: (offenders: Offenders) => times(50, () => offenders.silent()), told: [] },
  {
    claim: 'of a crowd each that has to go counts twice',
    happen: (offenders: Offenders) => times(26, () => offenders.crowd(false)),
    told: ['new'],
  },
  {
    claim: 'one that makes room for another of its own address is borne',
    happen: (offenders: Offenders) => offenders.crowd(true),
    told: [],
  },
  {
    claim: 'two are an attack: so many of one address say nothing',
    happen: (offenders: Offenders) => times(2, () => offenders.crowd(true)),
    told: ['new'],
  },
  {
    claim: 'handshakes that come to nothing count, of whomever they are',
    happen: (offenders: Offenders) => {
      let host = 0;
      times(51, () => offenders.failed(`10.0.1.${host++}`));
    },
    told: ['new'],
  },
  { claim: 'one cut tunnel is no attack', happen: (offenders: Offenders) => offenders.cut(BAD), told: [] },
  {
    claim: 'two cut tunnels are one',
    happen: (offenders: Offenders) => times(2, () => offenders.cut(BAD)),
    told: ['new'],
  },
] as const) {
  test(claim, () => assert.deepEqual(attacks(new FakeClock(), happen), told));
}

test('twenty connections a second in vain are borne for ever', () => {
  const clock = new FakeClock();
  const told = attacks(clock, (offenders) => {
    times(10_000, () => {
      clock.advance(50);
      offenders.silent();
    });
  });
  assert.deepEqual(told, []);
});

test('an attack that goes on is told once a second, and is a new one after a minute of peace', () => {
  const clock = new FakeClock();
  const told = attacks(clock, (offenders) => {
    const flood = (): void => {
      times(40, () => {
        times(10, () => offenders.silent());
        clock.advance(75);
      });
    };
    flood();
    clock.advance(59_000);
    flood();
    clock.advance(60_000);
    flood();
  });
  assert.deepEqual(told, ['new', 'on', 'on', 'on', 'on', 'on', 'new', 'on', 'on']);
});
