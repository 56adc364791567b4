import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Readiness } from '../../../../src/agent/admin/readiness.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

test('each completed task says how long it took and what is left', () => {
  const clock = new FakeClock();
  const lines: string[] = [];
  const readiness = new Readiness({ clock, log: { info: (line) => lines.push(line) } });
  readiness.begin('state manager');
  readiness.begin('proxy');
  clock.advance(12);
  readiness.complete('proxy');
  readiness.complete('proxy');
  clock.advance(1_000);
  readiness.complete('state manager');
  assert.deepEqual(lines, [
    "Task 'proxy' complete (12ms), still awaiting 1 tasks",
    "Task 'state manager' complete (1012ms), marking server ready",
  ]);
  assert.equal(readiness.isReady, true);
});
