/** What an agent exposes, read by the parser of Prometheus' Python client, and asked what the dashboard of ztunnel asks. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { silentLogger } from '../../../src/base/log.ts';
import { ConnectionRecords } from '../../../src/telemetry/connection-records.ts';
import { DnsRecords } from '../../../src/telemetry/dns-records.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { inbound, outbound, shop } from '../../unit/telemetry/traffic-fixture.ts';

const PYTHON = '/usr/bin/python3';
const hasParser = spawnSync(PYTHON, ['-c', 'import prometheus_client.openmetrics.parser']).status === 0;
const mustRun = process.env['MESH_REQUIRE_ROOT'] === '1';
const skip = hasParser || mustRun ? false : `python3-prometheus-client is not installed for ${PYTHON}`;

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: string;
}

interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly unit: string;
  readonly samples: readonly Sample[];
}

/** An agent in which everything that is counted has happened. */
async function page(): Promise<string> {
  const metrics = new AgentMetrics({ buildTag: '1.2.3', hasProcessMetrics: true });
  const clock = new FakeClock();
  const traffic = new ConnectionRecords({ metrics, accessLog: silentLogger, clock });
  for (const connection of [outbound, inbound]) {
    const record = traffic.open(connection);
    record.addClientBytes(11);
    record.addServerBytes(22);
  }
  traffic.open({ ...outbound, id: 'c-3' }).close({ code: 'CV-POLICY-DENY', text: 'denied' });
  // A name that would end its quotes, its line and its label if it could.
  const hostile = { ...shop, workload: 'a"} 1\nistio_build{x="\\' };
  traffic.open({ ...outbound, id: 'c-4', labels: { ...outbound.labels, source: hostile } }).close();
  for (const reporter of ['source', 'destination'] as const) {
    traffic.socketOpened(reporter);
    metrics.peerRevoked(reporter);
  }
  const dns = new DnsRecords({ metrics, log: silentLogger, clock });
  const question = { name: 'cart.retail', type: 'AAAA' };
  dns.answered({ transport: 'udp', question, outcome: { kind: 'local', result: 'success', addresses: 1 } });
  dns.answered({
    transport: 'tcp',
    question,
    outcome: { kind: 'forwarded', isNegative: true, answers: 0, durationMs: 30 },
  });
  const xds = metrics.forXds();
  xds.messageReceived('type.googleapis.com/istio.workload.Address', 1_500);
  for (const reason of ['ConnectionError', 'Error', 'Reconnect', 'Complete'] as const) xds.streamEnded(reason);
  metrics.hostLookups.count(shop, 'smtp.example.com');
  metrics.proxies.active.set(2);
  metrics.own.watchCertificates(() => [{ identity: 'spiffe://td/ns/a/sa/b', notAfterMs: 1_000_500 }]);
  return await metrics.render();
}

function parse(text: string): readonly Family[] {
  const script = fileURLToPath(new URL('parse.py', import.meta.url));
  const { status, stdout, stderr } = spawnSync(PYTHON, [script], { input: text, encoding: 'utf8', timeout: 60_000 });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as readonly Family[];
}

const families = skip === false ? parse(await page()) : [];
const samples = families.flatMap((family) => family.samples);

const TRAFFIC_LABELS =
  'reporter source_workload source_canonical_service source_canonical_revision source_workload_namespace source_principal ' +
  'source_app source_version source_cluster destination_service destination_service_namespace destination_service_name ' +
  'destination_workload destination_canonical_service destination_canonical_revision destination_workload_namespace ' +
  'destination_principal destination_app destination_version destination_cluster request_protocol response_flags ' +
  'connection_security_policy source_region source_zone destination_region destination_zone';
const DNS_LABELS = 'request_query_type request_protocol source_canonical_service source_canonical_revision';

const HOST_LOOKUP_LABELS =
  'source_workload source_canonical_service source_canonical_revision source_workload_namespace source_principal source_app ' +
  'source_version source_cluster hostname';

/** Sample name, type, labels, as ztunnel has them. */
const expected: readonly (readonly [name: string, type: string, labels: string])[] = [
  ['istio_tcp_connections_opened_total', 'counter', TRAFFIC_LABELS],
  ['istio_tcp_connections_closed_total', 'counter', TRAFFIC_LABELS],
  ['istio_tcp_received_bytes_total', 'counter', TRAFFIC_LABELS],
  ['istio_tcp_sent_bytes_total', 'counter', TRAFFIC_LABELS],
  ['istio_tcp_connections_failed_total', 'counter', TRAFFIC_LABELS],
  ['istio_tcp_sockets_open', 'gauge', 'reporter'],
  ['istio_crl_policy_rejections_total', 'counter', 'reporter'],
  ['istio_dns_requests_total', 'counter', DNS_LABELS],
  ['istio_dns_upstream_requests_total', 'counter', DNS_LABELS],
  ['istio_dns_upstream_failures_total', 'counter', DNS_LABELS],
  ['istio_dns_upstream_request_duration_seconds_bucket', 'histogram', `le ${DNS_LABELS}`],
  ['istio_dns_upstream_request_duration_seconds_count', 'histogram', DNS_LABELS],
  ['istio_dns_upstream_request_duration_seconds_sum', 'histogram', DNS_LABELS],
  ['istio_xds_connection_terminations_total', 'counter', 'reason'],
  ['istio_xds_message_total', 'counter', 'url'],
  ['istio_xds_message_bytes_total', 'counter', 'url'],
  ['istio_on_demand_dns_total', 'counter', HOST_LOOKUP_LABELS],
  ['istio_build', 'gauge', 'component tag'],
  ['workload_manager_active_proxy_count', 'gauge', ''],
  ['workload_manager_pending_proxy_count', 'gauge', ''],
  ['workload_manager_proxies_started_total', 'counter', ''],
  ['workload_manager_proxies_stopped_total', 'counter', ''],
  ['process_open_fds', 'gauge', ''],
  ['process_max_fds', 'gauge', ''],
];

for (const [name, type, labels] of expected) {
  test(`${name} is a ${type} with the labels of ztunnel`, { skip }, () => {
    const family = families.find((each) => each.samples.some((sample) => sample.name === name));
    assert(family !== undefined, `no sample of ${name}`);
    assert.equal(family.type, type);
    for (const sample of family.samples.filter((each) => each.name === name)) {
      assert.deepEqual(Object.keys(sample.labels).toSorted(), labels.split(' ').filter(Boolean).toSorted());
    }
  });
}

test('a name that a peer chose is one label value, whatever it holds', { skip }, () => {
  const hostile = samples.filter(({ labels }) => labels['source_workload'] === 'a"} 1\nistio_build{x="\\');
  assert(hostile.some(({ name }) => name === 'istio_tcp_connections_closed_total'));
  assert.equal(samples.filter(({ name }) => name === 'istio_build').length, 1);
});

test('streams to the control plane end for the reasons that ztunnel names, and bytes are bytes', { skip }, () => {
  const ends = samples.filter(({ name }) => name === 'istio_xds_connection_terminations_total');
  const reasons = ends.map(({ labels }) => labels['reason']);
  assert.deepEqual(reasons, ['ConnectionError', 'Error', 'Reconnect', 'Complete']);
  assert.equal(families.find(({ name }) => name === 'istio_xds_message_bytes')?.unit, 'bytes');
});

test('buckets of DNS durations are those of ztunnel, in seconds', { skip }, () => {
  const family = families.find(({ name }) => name === 'istio_dns_upstream_request_duration_seconds');
  assert.equal(family?.unit, 'seconds');
  const buckets = family.samples.filter(({ name }) => name.endsWith('_bucket'));
  assert.deepEqual(
    buckets.map(({ labels, value }) => `${Number(labels['le']?.replace('+Inf', 'Infinity'))} ${Number(value)}`),
    ['0.0005 0', '0.001 0', '0.01 0', '0.1 1', '1 1', '5 1', 'Infinity 1'],
  );
});

/** Panels of "Istio Ztunnel Dashboard" that ask the agent; the others ask the kubelet. */
const panels: Readonly<Record<string, string>> = {
  'Ztunnel Versions': 'sum by (tag) (istio_build{component="ztunnel"})',
  Connections:
    'sum by (pod) (rate(istio_tcp_connections_opened_total{pod=~"ztunnel-.*"}[$__rate_interval])) - ' +
    'sum by (pod) (rate(istio_tcp_connections_closed_total{pod=~"ztunnel-.*"}[$__rate_interval]))',
  'Bytes Transmitted':
    'sum by (pod) (rate(istio_tcp_sent_bytes_total{pod=~"ztunnel-.*"}[$__rate_interval])) + ' +
    'sum by (pod) (rate(istio_tcp_received_bytes_total{pod=~"ztunnel-.*"}[$__rate_interval]))',
  'DNS Request': 'sum by (pod) (rate(istio_dns_requests_total{pod=~"ztunnel-.*"}[$__rate_interval]))',
  'XDS Connections':
    'sum by (pod) (rate(istio_xds_connection_terminations_total{pod=~"ztunnel-.*"}[$__rate_interval]))',
  'XDS Pushes': 'sum by (url) (irate(istio_xds_message_total{pod=~"ztunnel-.*"}[$__rate_interval]))',
  'Workload Manager':
    'sum by (pod) (workload_manager_active_proxy_count{pod=~"ztunnel-.*"}) + ' +
    'sum by (pod) (workload_manager_pending_proxy_count{pod=~"ztunnel-.*"})',
  'Resource Usage':
    'sum by (pod) (istio_tcp_connections_opened_total{app="ztunnel"}) - ' +
    'sum by (pod) (istio_tcp_connections_closed_total{app="ztunnel"}) + ' +
    'sum by (pod) (process_open_fds{app="ztunnel"}) + sum by (pod) (istio_tcp_sockets_open{app="ztunnel"})',
};

/** What Prometheus adds to every series of a pod of daemonset/ztunnel.yaml. */
const TARGET = { pod: 'ztunnel-x7k2p', app: 'ztunnel', container: 'istio-proxy' };

/** Series that `name{label="value",label=~"pattern"}` selects. */
function select(selector: string): readonly Sample[] {
  const [, name = '', matchers = ''] = /^(\w+)\{(.*)\}$/.exec(selector) ?? [];
  const wanted = [...matchers.matchAll(/(\w+)(=~?)"([^"]*)"/g)];
  return samples.filter((sample) => {
    const labels: Readonly<Record<string, string>> = { ...sample.labels, ...TARGET };
    return (
      sample.name === name &&
      wanted.every(([, label = '', operator, value = '']) => {
        const actual = labels[label] ?? '';
        return operator === '=' ? actual === value : new RegExp(`^(?:${value})$`).test(actual);
      })
    );
  });
}

for (const [panel, query] of Object.entries(panels)) {
  test(`the panel ${panel} finds its series`, { skip }, () => {
    const selectors = query.match(/\w+\{[^}]*\}/g) ?? [];
    assert(selectors.length > 0);
    for (const selector of selectors) assert(select(selector).length > 0, selector);
    const grouped = /sum by \((\w+)\)/.exec(query)?.[1] ?? '';
    for (const sample of selectors.flatMap(select)) assert(grouped in { ...sample.labels, ...TARGET }, grouped);
  });
}

test('connections that are open are those opened less those closed, over all flags', { skip }, () => {
  const sum = (name: string) =>
    samples.filter((each) => each.name === name).reduce((n, each) => n + Number(each.value), 0);
  const open = sum('istio_tcp_connections_opened_total') - sum('istio_tcp_connections_closed_total');
  assert.equal(open, 2);
});
