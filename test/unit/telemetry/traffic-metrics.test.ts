import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { inbound, outbound, samplesOf, shop, trafficFixture } from './traffic-fixture.ts';

function labels(reporter: string, flags: string): string {
  return (
    `{reporter="${reporter}",source_workload="shop",source_canonical_service="shop",source_canonical_revision="v1",` +
    'source_workload_namespace="retail",source_principal="spiffe://cluster.local/ns/retail/sa/shop",' +
    'source_app="shop",source_version="v1",source_cluster="east1",' +
    'destination_service="cart.retail.svc.cluster.local",destination_service_namespace="retail",' +
    'destination_service_name="cart",destination_workload="cart",destination_canonical_service="cart",' +
    'destination_canonical_revision="v1",destination_workload_namespace="retail",' +
    'destination_principal="spiffe://cluster.local/ns/retail/sa/cart",destination_app="cart",' +
    'destination_version="v1",destination_cluster="east1",request_protocol="tcp",' +
    `response_flags="${flags}",connection_security_policy="mutual_tls",source_region="r1",source_zone="unknown",` +
    'destination_region="r1",destination_zone="unknown"}'
  );
}

test('both reporters count the request as received and the response as sent', async () => {
  const { traffic, metrics } = trafficFixture();
  for (const start of [outbound, inbound]) {
    const record = traffic.open(start);
    record.addClientBytes(11);
    record.addServerBytes(22);
    record.close();
  }
  for (const [name, value] of [
    ['istio_tcp_received_bytes_total', 11],
    ['istio_tcp_sent_bytes_total', 22],
    ['istio_tcp_connections_opened_total', 1],
    ['istio_tcp_connections_closed_total', 1],
  ] as const) {
    assert.deepEqual(await samplesOf(metrics, name), [
      `${labels('source', '-')} ${value}`,
      `${labels('destination', '-')} ${value}`,
    ]);
  }
});

test('bytes are visible while the connection is open, and 0 before the first one', async () => {
  const { traffic, metrics } = trafficFixture();
  const record = traffic.open(outbound);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_sent_bytes_total'), [`${labels('source', '-')} 0`]);
  record.addServerBytes(5);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_sent_bytes_total'), [`${labels('source', '-')} 5`]);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_closed_total'), []);
});

test('a failed connection is opened with - and closed and failed with its flag', async () => {
  const { traffic, metrics } = trafficFixture();
  traffic.open(outbound).close({ code: 'CV-POLICY-DENY', text: 'denied' });
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_opened_total'), [`${labels('source', '-')} 1`]);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_closed_total'), [`${labels('source', 'DENY')} 1`]);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_failed_total'), [`${labels('source', 'DENY')} 1`]);
});

test('a connection cut by drain is closed with - and is not a failure', async () => {
  const { traffic, metrics } = trafficFixture();
  traffic.open(outbound).close({ code: 'CV-DRAIN', text: 'connection closed due to connection drain' });
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_closed_total'), [`${labels('source', '-')} 1`]);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_failed_total'), []);
});

test('a plaintext source has no principal, a known destination has one', async () => {
  const { traffic, metrics } = trafficFixture();
  traffic.open({ ...outbound, labels: { ...outbound.labels, securityPolicy: 'unknown' } }).close();
  const [sample = ''] = await samplesOf(metrics, 'istio_tcp_connections_closed_total');
  assert.match(sample, /source_principal="unknown"/);
  assert.match(sample, /destination_principal="spiffe:\/\/cluster.local\/ns\/retail\/sa\/cart"/);
  assert.match(sample, /connection_security_policy="unknown"/);
});

test('a refusal is counted by reason, layer and direction, and early ones touch no traffic metric', async () => {
  const { traffic, metrics } = trafficFixture();
  traffic.refused({
    direction: 'inbound',
    podUid: 'p',
    src: { ip: '1.1.1.1', port: 1 },
    dst: { ip: '2.2.2.2', port: 2 },
    refusal: { code: 'CV-AUTHORITY', text: 'invalid CONNECT address x' },
  });
  assert.deepEqual(await samplesOf(metrics, 'culvert_refusals_total'), [
    '{reason="CV-AUTHORITY",layer="tunnel",direction="inbound"} 1',
  ]);
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_connections_opened_total'), []);
});

test('sockets held are a gauge per reporter', async () => {
  const { traffic, metrics } = trafficFixture();
  traffic.socketOpened('source');
  traffic.socketOpened('source');
  traffic.socketOpened('destination');
  traffic.socketClosed('source');
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_sockets_open'), [
    '{reporter="source"} 1',
    '{reporter="destination"} 1',
  ]);
});

test('label sets are bounded: an idle one makes room, and with none idle new ones share an unnamed set', async () => {
  const { traffic, metrics } = trafficFixture({ maxLabelSets: 2 });
  const from = (workload: string) => ({ ...outbound, labels: { ...outbound.labels, source: { ...shop, workload } } });
  traffic.open(from('idle')).close();
  const first = traffic.open(from('first'));
  traffic.open(from('second'));
  traffic.open(from('third')).addClientBytes(3);
  first.addClientBytes(1);
  const received = await samplesOf(metrics, 'istio_tcp_received_bytes_total');
  assert.deepEqual(
    received.map((line) => line.replace(/.*source_workload="(\w+)".* (\d+)$/, '$1 $2')),
    ['first 1', 'second 0', 'unknown 3'],
  );
  assert.deepEqual(await samplesOf(metrics, 'culvert_label_sets'), [' 3']);
  assert.deepEqual(await samplesOf(metrics, 'culvert_label_sets_evicted'), [' 1']);
});

test('a certificate that left leaves no expiry series behind', async () => {
  const { metrics } = trafficFixture();
  let held = [{ identity: 'spiffe://td/ns/a/sa/b', notAfterMs: 1_000_500 }];
  metrics.own.watchCertificates(() => held);
  assert.deepEqual(await samplesOf(metrics, 'culvert_certificate_expiry_seconds'), [
    '{identity="spiffe://td/ns/a/sa/b"} 1000.5',
  ]);
  held = [];
  assert.deepEqual(await samplesOf(metrics, 'culvert_certificate_expiry_seconds'), []);
});

test('every metric says it is unstable, but the stable core and the process metrics', async () => {
  const { traffic, metrics } = trafficFixture();
  const all = new AgentMetrics({ buildTag: 't', hasProcessMetrics: true });
  traffic.open(outbound).close({ code: 'CV-IO', text: 'x' });
  traffic.socketOpened('source');
  const text = (await metrics.render()) + (await all.render());
  const stable =
    /^(istio_build|istio_tcp_(connections_opened|connections_closed|received_bytes|sent_bytes))$|^(process|nodejs)_/;
  const help = [...text.matchAll(/^# HELP (\S+) (.*)$/gm)];
  assert(help.length > 30);
  for (const [, name = '', line = ''] of help) {
    assert.equal(/\(unstable\)/.test(line), !stable.test(name), `${name}: ${line}`);
  }
});

test('descriptors of the process are reported', async () => {
  const text = await new AgentMetrics({ buildTag: 't', hasProcessMetrics: true }).render();
  assert.match(text, /^process_open_fds \d+$/m);
  assert.match(text, /^process_max_fds \d+$/m);
  assert.match(text, /^nodejs_heap_size_used_bytes \d+$/m);
});
