import assert from 'node:assert/strict';
import { test } from 'node:test';
import { skipWithoutRoot } from '../../support/netns.ts';
import { liveUpgrades } from '../../support/upgrade.ts';

test('two upgrades of both nodes reset no connection, lose no byte, refuse nobody, and log each connection once', {
  skip: skipWithoutRoot,
  timeout: 180_000,
}, async () => {
  const report = await liveUpgrades({ streams: 200, rounds: 2, newPerSecond: 20, intervalMs: 250 });
  assert.deepEqual(report.failures, []);
  assert.deepEqual(report.failedNew, []);
  assert.equal(report.badLines, 0);
  assert.deepEqual(report.exits, [0, 0, 0, 0]);
  assert.ok(report.records > report.streams);
  // Each upgrade moves the third that is plaintext at this node.
  assert.ok(report.moved >= report.upgrades * 66, `${report.moved} moved`);
  assert.ok(report.newConnections > 0);
});
