import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inbound, outbound, trafficFixture } from './traffic-fixture.ts';

const START = '2026-01-01T00:00:00.000000Z';
const IDENTITIES =
  'src.addr=10.42.1.7:51840 src.workload="shop-6d9f7c5b8-x2x9q" src.namespace="retail"' +
  ' src.identity="spiffe://cluster.local/ns/retail/sa/shop" src.cluster="east1" dst.addr=10.42.2.9:15008' +
  ' dst.hbone_addr=10.42.2.9:8080 dst.service="cart.retail.svc.cluster.local" dst.workload="cart-0"' +
  ' dst.namespace="retail" dst.identity="spiffe://cluster.local/ns/retail/sa/cart" dst.cluster="east1"';

test('a connection that ended in order is one info line with the fields of ztunnel in its order', () => {
  const { traffic, lines, clock } = trafficFixture();
  const record = traffic.open(outbound);
  record.addClientBytes(11);
  record.addServerBytes(20);
  record.addServerBytes(2);
  clock.advance(7);
  record.close();
  assert.deepEqual(lines, [
    `2026-01-01T00:00:00.007000Z\tinfo\taccess\tconnection complete\t${IDENTITIES}` +
      ' direction="outbound" bytes_sent=11 bytes_recv=22 duration="7ms" connection="c-1"\n',
  ]);
});

test('the same line as JSON', () => {
  const { traffic, lines, clock } = trafficFixture({ format: 'json' });
  const record = traffic.open(outbound);
  record.addClientBytes(11);
  record.addServerBytes(22);
  clock.advance(7);
  record.close();
  assert.deepEqual(lines, [
    '{"level":"info","time":"2026-01-01T00:00:00.007000Z","scope":"access","message":"connection complete",' +
      '"src.addr":"10.42.1.7:51840","src.workload":"shop-6d9f7c5b8-x2x9q","src.namespace":"retail",' +
      '"src.identity":"spiffe://cluster.local/ns/retail/sa/shop","src.cluster":"east1",' +
      '"dst.addr":"10.42.2.9:15008","dst.hbone_addr":"10.42.2.9:8080","dst.service":"cart.retail.svc.cluster.local",' +
      '"dst.workload":"cart-0","dst.namespace":"retail","dst.identity":"spiffe://cluster.local/ns/retail/sa/cart",' +
      '"dst.cluster":"east1","direction":"outbound","bytes_sent":11,"bytes_recv":22,"duration":"7ms",' +
      '"connection":"c-1"}\n',
  ]);
});

test('an inbound line counts as sent what the server sent', () => {
  const { traffic, lines } = trafficFixture();
  const record = traffic.open(inbound);
  record.addClientBytes(11);
  record.addServerBytes(22);
  record.close();
  assert.match(lines[0] ?? '', / direction="inbound" bytes_sent=22 bytes_recv=11 duration="0ms" connection="c-2"\n$/);
});

test('a refused connection is one error line that ends with error, reason and connection', () => {
  const { traffic, lines, clock } = trafficFixture();
  const record = traffic.open({ ...outbound, id: 'c-3' });
  clock.advance(10_002);
  record.close({ code: 'CV-TUNNEL-TIMEOUT', text: 'connection timed out: deadline has elapsed' });
  assert.deepEqual(lines, [
    `2026-01-01T00:00:10.002000Z\terror\taccess\tconnection complete\t${IDENTITIES}` +
      ' direction="outbound" bytes_sent=0 bytes_recv=0 duration="10002ms"' +
      ' error="connection timed out: deadline has elapsed" reason="CV-TUNNEL-TIMEOUT" connection="c-3"\n',
  ]);
});

test('a connection refused before its labels are known is one warn line with addresses, direction and error', () => {
  const { traffic, lines } = trafficFixture();
  traffic.refused({
    direction: 'outbound',
    podUid: 'pod-1',
    src: { ip: '10.42.1.7', port: 52_000 },
    dst: { ip: '10.42.1.8', port: 15_008 },
    refusal: { code: 'CV-SELF-CALL', text: 'attempted recursive call to ourselves' },
  });
  assert.deepEqual(lines, [
    `${START}\twarn\taccess\tconnection failed\tsrc.addr=10.42.1.7:52000 dst.addr=10.42.1.8:15008` +
      ' direction="outbound" error="attempted recursive call to ourselves" reason="CV-SELF-CALL" connection="early-1"\n',
  ]);
});

test('identities are printed only for mutual TLS, and unknown values not at all', () => {
  const { traffic, lines } = trafficFixture();
  const { hboneAuthority: _, originalDst: __, ...plain } = outbound;
  const { destinationService: ___, destination: ____, ...labels } = outbound.labels;
  traffic.open({ ...plain, protocol: 'TCP', labels: { ...labels, securityPolicy: 'unknown' } }).close();
  assert.equal(
    lines[0],
    `${START}\tinfo\taccess\tconnection complete\tsrc.addr=10.42.1.7:51840 src.workload="shop-6d9f7c5b8-x2x9q"` +
      ' src.namespace="retail" src.cluster="east1" dst.addr=10.42.2.9:15008 direction="outbound" bytes_sent=0' +
      ' bytes_recv=0 duration="0ms" connection="c-1"\n',
  );
});

test('a connection that is being opened is a debug line without numbers', () => {
  const { traffic, lines } = trafficFixture({ filter: 'access=debug' });
  traffic.open(outbound);
  assert.deepEqual(lines, [
    `${START}\tdebug\taccess\tconnection opened\t${IDENTITIES} direction="outbound" connection="c-1"\n`,
  ]);
});

test('closing twice writes one line and counts once', () => {
  const { traffic, lines } = trafficFixture();
  const record = traffic.open(outbound);
  record.close({ code: 'CV-IO', text: 'io error: broken' });
  record.close();
  assert.equal(lines.length, 1);
  assert.deepEqual(traffic.totals(), { live: 0, opened: 1, refused: { 'CV-IO': 1 } });
});
