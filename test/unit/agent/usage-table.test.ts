import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageTable } from '../../../src/agent/usage-table.ts';
import type { WorkloadUse } from '../../../src/telemetry/workload-use.ts';
import { use } from '../telemetry/use-fixture.ts';

function numbers(table: UsageTable): Record<string, readonly number[]> {
  return Object.fromEntries(
    table
      .all()
      .map(({ podUid, connections, openConnections }: WorkloadUse) => [podUid, [connections, openConnections]]),
  );
}

test('a pod is the sum of what all threads have counted for it', () => {
  const table = new UsageTable();
  table.tell('worker-1', {}, [use('a', { connections: 3, openConnections: 1 }), use('b', { connections: 1 })]);
  table.tell('worker-2', {}, [use('a', { connections: 4, openConnections: 2 })]);
  assert.deepEqual(numbers(table), { a: [7, 3], b: [1, 0] });
});

test('the totals of a thread that another replaced stay, what it had open does not', () => {
  const table = new UsageTable();
  for (const connections of [3, 2, 1]) {
    table.tell('worker-1', {}, [use('a', { connections, openConnections: connections })]);
  }
  assert.deepEqual(numbers(table), { a: [6, 1] });
});

test('of a pod that no thread serves any more nothing is kept', () => {
  const table = new UsageTable();
  table.tell('worker-1', {}, [use('a', { connections: 3 }), use('b', { connections: 1 })]);
  const next = {};
  table.tell('worker-1', next, [use('b', { connections: 1 })]);
  assert.deepEqual(numbers(table), { b: [2, 0] });
  table.tell('worker-1', next, [use('a', { connections: 1 }), use('b', { connections: 1 })]);
  assert.deepEqual(numbers(table), { a: [1, 0], b: [2, 0] });
});

test('the totals of a thread whose place nobody takes stay as long as another serves the pod', () => {
  const table = new UsageTable();
  const worker = {};
  table.tell('worker-1', worker, [use('a', { connections: 3, openConnections: 1 }), use('b', {})]);
  table.tell('greedy-1', {}, [use('a', { connections: 4, openConnections: 2 })]);
  table.end('greedy-1');
  assert.deepEqual(numbers(table), { a: [7, 1], b: [0, 0] });
  table.tell('worker-1', worker, [use('b', {})]);
  assert.deepEqual(numbers(table), { b: [0, 0] });
});
