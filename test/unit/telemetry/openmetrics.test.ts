import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { type Family, openMetricsPieces } from '../../../src/telemetry/openmetrics.ts';
import { anyText } from '../../support/any-text.ts';
import { outbound, shop, trafficFixture } from './traffic-fixture.ts';

function textOf(families: readonly Family[]): string {
  return [...openMetricsPieces(families)].join('');
}

test('counters are declared without _total, samples carry it, and the text ends with EOF', () => {
  const text = textOf([
    { name: 'a_total', help: 'All a.', type: 'counter', samples: [{ labels: { x: '1' }, value: 2 }] },
    { name: 'g', help: 'A gauge', type: 'gauge', samples: [{ labels: {}, value: 0.5 }] },
  ]);
  assert.equal(
    text,
    '# HELP a All a.\n# TYPE a counter\na_total{x="1"} 2\n# HELP g A gauge\n# TYPE g gauge\ng 0.5\n# EOF\n',
  );
});

test('a family without a sample is left out', () => {
  assert.equal(textOf([{ name: 'a_total', help: 'h', type: 'counter', samples: [] }]), '# EOF\n');
});

test('label values are escaped, so a value cannot end its quotes or its line', () => {
  const samples = [{ labels: { x: 'a"b\\c\nd' }, value: Infinity }];
  assert.equal(
    textOf([{ name: 'g', help: 'h', type: 'gauge', samples }]),
    '# HELP g h\n# TYPE g gauge\ng{x="a\\"b\\\\c\\nd"} +Inf\n# EOF\n',
  );
});

const PAUSES = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, '+Inf'];

test('an agent without traffic exposes its build and the unlabelled metrics, and nothing else', async () => {
  const text = await new AgentMetrics({ buildTag: '1.2.3', hasProcessMetrics: false }).render();
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  assert.deepEqual(samples, [
    'istio_build{component="ztunnel",tag="1.2.3"} 1',
    'workload_manager_active_proxy_count 0',
    'workload_manager_pending_proxy_count 0',
    'workload_manager_proxies_started_total 0',
    'workload_manager_proxies_stopped_total 0',
    'culvert_redirect_repairs_total 0',
    'culvert_bugs_total 0',
    'culvert_policies_rejected 0',
    'culvert_label_sets 0',
    'culvert_label_sets_evicted 0',
    ...PAUSES.map((le) => `culvert_hand_over_pause_seconds_bucket{le="${le}"} 0`),
    'culvert_hand_over_pause_seconds_sum 0',
    'culvert_hand_over_pause_seconds_count 0',
    'culvert_held_connections 0',
  ]);
  assert.match(text, /^# HELP istio_build Istio component build info\.\n# TYPE istio_build gauge$/m);
});

test('whether a CNI agent is connected is said where one is asked', async () => {
  const metrics = new AgentMetrics({ buildTag: '1.2.3', hasProcessMetrics: false });
  metrics.zds.connected(false);
  assert.match(await metrics.render(), /^culvert_zds_connected 0$/m);
  metrics.zds.connected(true);
  assert.match(await metrics.render(), /^culvert_zds_connected 1$/m);
});

test('any label value at all reads back from its line as itself', () => {
  fc.assert(
    fc.property(anyText(), (value) => {
      const text = textOf([
        { name: 'g', help: 'h', type: 'gauge', samples: [{ labels: { x: value, y: 'z' }, value: 1 }] },
      ]);
      const [, , sample = '', end] = text.split('\n');
      assert.equal(end, '# EOF');
      const escaped = /^g\{x="((?:[^"\\]|\\.)*)",y="z"\} 1$/s.exec(sample)?.[1];
      assert.equal(
        escaped?.replaceAll(/\\(.)/gs, (_, escape: string) => (escape === 'n' ? '\n' : escape)),
        value,
      );
    }),
  );
});

test('a text of many series is as of one moment, and leaves the thread to others while it is written', async () => {
  const { metrics, traffic } = trafficFixture({ maxLabelSets: 1_000 });
  const records = Array.from({ length: 1_000 }, (_, at) =>
    traffic.open({
      ...outbound,
      id: `c-${at}`,
      labels: { ...outbound.labels, source: { ...shop, workload: `w-${at}` } },
    }),
  );
  let turns = 0;
  const immediate = (): void => {
    turns += 1;
    for (const record of records) record.addClientBytes(1);
    pending = setImmediate(immediate);
  };
  let pending = setImmediate(immediate);

  const text = await metrics.render();

  clearImmediate(pending);
  assert(turns >= 15, `${turns} turns`);
  const counts = [...text.matchAll(/^istio_tcp_received_bytes_total\{.*\} (\d+)$/gm)].map(([, count]) => count);
  assert.equal(counts.length, 1_000);
  assert.equal(new Set(counts).size, 1);
});
