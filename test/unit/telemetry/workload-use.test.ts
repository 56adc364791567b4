import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Family, openMetricsPieces } from '../../../src/telemetry/openmetrics.ts';
import { WorkloadUseTable } from '../../../src/telemetry/workload-use.ts';
import { use } from './use-fixture.ts';

function textOf(families: readonly Family[]): string {
  return [...openMetricsPieces(families)].join('');
}

test('each pod has its series, under the names of its namespace and itself', () => {
  const table = new WorkloadUseTable();
  table.replace([
    { ...use('uid-1', { loopSeconds: 1.5, bufferedBytes: 4096 }), namespace: 'shop', pod: 'web-0', lane: 'greedy' },
  ]);
  const text = textOf(table.families());
  assert.match(text, /^culvert_workload_loop_seconds_total\{namespace="shop",pod="web-0"\} 1\.5$/m);
  assert.match(text, /^culvert_workload_buffered_bytes\{namespace="shop",pod="web-0"\} 4096$/m);
  assert.match(text, /^culvert_workload_greedy\{namespace="shop",pod="web-0"\} 1$/m);
});

test('pods beyond 1,024 are one row, so that sums stay true', () => {
  const table = new WorkloadUseTable();
  const uses = Array.from({ length: 1_100 }, (_, at) => {
    return { ...use(`uid-${at}`, { connections: 1 }), namespace: 'shop', pod: `web-${at}`, lane: 'common' as const };
  });
  table.replace(uses);
  const family = table.families().find(({ name }) => name === 'culvert_workload_connections_total');
  assert.equal(family?.samples.length, 1_025);
  assert.deepEqual(family?.samples.at(-1), { labels: { namespace: 'other', pod: 'other' }, value: 76 });
});
