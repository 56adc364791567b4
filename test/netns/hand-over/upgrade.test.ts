import assert from 'node:assert/strict';
import { test } from 'node:test';
import { skipWithoutRoot } from '../../support/netns.ts';
import { liveUpgrades, MOVED_PER_STREAM, TUNNELLED_PER_STREAM, type UpgradeReport } from '../../support/upgrade.ts';

const privileged = { skip: skipWithoutRoot, timeout: 300_000 };

function assertCarried(report: UpgradeReport): void {
  const { streams, upgrades, held } = report;
  assert.deepEqual(report.failures, []);
  assert.deepEqual(report.failedNew, []);
  assert.equal(report.badLines, 0);
  assert.deepEqual(
    report.exits,
    Array.from({ length: upgrades }, () => 0),
  );
  assert.ok(report.records > streams);
  assert.ok(report.newConnections > 0);
  // Nothing keeps a replaced agent once all has moved.
  if (held === 0) assert.equal(report.gone, upgrades);
  // A few may be slow on a busy machine, and stay.
  const most = 0.9 * streams * upgrades;
  assert.ok(report.moved >= most * MOVED_PER_STREAM, `${report.moved} moved, ${held} held`);
  assert.ok(report.tunnelled >= most * TUNNELLED_PER_STREAM, `${report.tunnelled} streams of tunnels moved`);
}

test(
  'upgrades of both nodes reset no connection, lose no byte, refuse nobody, and log each connection once',
  privileged,
  async () => {
    assertCarried(
      await liveUpgrades({ streams: 200, rounds: ['in-turn', 'in-turn'], newPerSecond: 20, intervalMs: 250 }),
    );
  },
);

test(
  'upgrades of both nodes at the same moment do so, too, whichever worker a client finds first',
  privileged,
  async () => {
    const rounds = ['at-once', 'at-once'] as const;
    assertCarried(await liveUpgrades({ streams: 40, rounds, newPerSecond: 5, intervalMs: 250, workers: 2 }));
  },
);
