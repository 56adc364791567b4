import assert from 'node:assert/strict';
import { test } from 'node:test';
import { workloadLabels } from '../../../src/model/labels.ts';
import { HostLookupTable } from '../../../src/telemetry/host-lookup-series.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { workload } from '../model/sample-mesh.ts';

const CLIENT = workloadLabels(workload('client'));

test('look-ups are counted per client and host name, with the identity of the client', async () => {
  const metrics = new AgentMetrics({ buildTag: '1', hasProcessMetrics: false });
  for (const host of ['a.example.com', 'b.example.com', 'a.example.com']) metrics.hostLookups.count(CLIENT, host);
  const lines = (await metrics.render()).split('\n').filter((line) => line.startsWith('istio_on_demand_dns_total'));
  const source =
    'source_workload="client-deploy",source_canonical_service="client-app",source_canonical_revision="v1",' +
    'source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/client",' +
    'source_app="client-app",source_version="v1",source_cluster="Kubernetes"';
  assert.deepEqual(lines, [
    `istio_on_demand_dns_total{${source},hostname="b.example.com"} 1`,
    `istio_on_demand_dns_total{${source},hostname="a.example.com"} 2`,
  ]);
});

test('however many host names there are, a bounded number is counted, the latest among them', () => {
  const table = new HostLookupTable(10);
  for (let n = 0; n < 100; n++) table.count(CLIENT, `host-${n}`);
  const hosts = table.family().samples.map(({ labels }) => labels['hostname']);
  assert.deepEqual(
    hosts,
    Array.from({ length: 10 }, (_, n) => `host-${n + 90}`),
  );
});
