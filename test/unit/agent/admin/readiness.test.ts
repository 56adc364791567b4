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

test('an agent that was ready and is no more says why, once; not at its start, nor when it drains', () => {
  const warnings: string[] = [];
  const readiness = new Readiness({ clock: new FakeClock(), log: { warn: (line) => warnings.push(line) } });
  readiness.begin('proxy');
  readiness.begin('state manager');
  readiness.complete('state manager');
  readiness.begin('state manager');
  assert.deepEqual(warnings, []);
  readiness.complete('proxy');
  readiness.complete('state manager');

  readiness.begin('workload proxy manager');
  readiness.begin('workload proxy manager');
  readiness.begin('proxy');
  assert.deepEqual(warnings, ["Task 'workload proxy manager' is pending again, marking server not ready"]);

  readiness.complete('workload proxy manager');
  readiness.complete('proxy');
  readiness.begin('drain');
  assert.equal(warnings.length, 1);
});
