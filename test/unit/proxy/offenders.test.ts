import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Offenders } from '../../../src/proxy/offenders.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const BAD = '10.0.0.66';

test('each cut tunnel makes the next connection wait twice as long, up to 4 s, and others not at all', () => {
  const offenders = new Offenders(new FakeClock());
  assert.equal(offenders.delayMs(BAD), 0);
  const delays = Array.from({ length: 9 }, () => offenders.cut(BAD));
  assert.deepEqual(delays, [100, 200, 400, 800, 1_600, 3_200, 4_000, 4_000, 4_000]);
  assert.equal(offenders.delayMs(BAD), 4_000);
  assert.equal(offenders.delayMs('10.0.0.1'), 0);
});

test('one cut tunnel is forgiven in 5 s, any number of them in 35 s', () => {
  const clock = new FakeClock();
  const offenders = new Offenders(clock);
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
  const offenders = new Offenders(clock);
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
  const offenders = new Offenders(clock);
  const delays = [0, 7, 8, 24, 40, 56, 72, 104, 512].map((inProgress) => offenders.delayMs(BAD, inProgress));
  assert.deepEqual(delays, [0, 0, 100, 200, 400, 800, 1_600, 4_000, 4_000]);
  offenders.cut(BAD);
  assert.equal(offenders.delayMs(BAD, 16), 200);
  clock.advance(60_000);
  assert.equal(offenders.delayMs(BAD, 8), 100);
  assert.equal(offenders.delayMs(BAD), 0);
});
