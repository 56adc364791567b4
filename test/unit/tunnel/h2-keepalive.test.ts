import assert from 'node:assert/strict';
import { test } from 'node:test';
import { H2Keepalive } from '../../../src/tunnel/h2-keepalive.ts';
import { FakeClock } from '../../support/fake-clock.ts';

interface Kept {
  readonly clock: FakeClock;
  readonly keepalive: H2Keepalive;
  readonly sent: Uint8Array[];
  isHostAlive: boolean;
  isDead: boolean;
}

/** Has just sent its first PING. */
function asking(isHostAlive: boolean): Kept {
  const clock = new FakeClock();
  const sent: Uint8Array[] = [];
  const keepalive = new H2Keepalive({
    clock,
    sendPing: (payload) => sent.push(payload),
    isHostAlive: () => kept.isHostAlive,
    onDead: () => (kept.isDead = true),
    onDrainAnswered: () => {},
  });
  const kept: Kept = { clock, keepalive, sent, isHostAlive, isDead: false };
  keepalive.start();
  clock.advance(10_000);
  assert.equal(sent.length, 1);
  return kept;
}

/** When it was given up, in ms after the first PING; `undefined`: not in ten minutes. */
function deadAfterMs(kept: Kept): number | undefined {
  for (let ms = 100; ms <= 600_000; ms += 100) {
    kept.clock.advance(100);
    if (kept.isDead) return ms;
  }
  return undefined;
}

test('a peer whose machine acknowledges nothing is dead after 20 s', () => {
  assert.equal(deadAfterMs(asking(false)), 20_000);
});

test('a peer whose process is silent, while its machine acknowledges, is asked three times', () => {
  const kept = asking(true);
  assert.equal(deadAfterMs(kept), 60_000);
  assert.equal(kept.sent.length, 3);
});

test('a machine that dies between two PINGs is found by the next', () => {
  const kept = asking(true);
  kept.clock.advance(25_000);
  kept.isHostAlive = false;
  assert.equal(deadAfterMs(kept), 15_000);
});

test('a peer that says something else is alive, however late its answer is', () => {
  const kept = asking(false);
  for (let ms = 0; ms < 300_000; ms += 5_000) {
    kept.clock.advance(5_000);
    kept.keepalive.heard();
  }
  assert.equal(kept.isDead, false);
  assert.equal(deadAfterMs(kept), 40_000, 'from the last word to the end of the next PING');
});

test('the answers to all PINGs are those that were asked for, and no more', () => {
  const kept = asking(true);
  kept.clock.advance(45_000);
  const answers = kept.sent.map((payload) => kept.keepalive.answered(payload));
  assert.deepEqual(answers, [true, true, true]);
  assert.equal(kept.keepalive.answered(kept.sent[0] ?? new Uint8Array(8)), false);
  assert.equal(kept.isDead, false);
});
