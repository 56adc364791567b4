import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outbound, trafficFixture } from './traffic-fixture.ts';

test('an open connection is found and listed with what it has carried so far', () => {
  const { traffic, clock } = trafficFixture();
  traffic.open(outbound).addClientBytes(11);
  clock.advance(1_500);
  assert.deepEqual(traffic.find('c-1'), {
    id: 'c-1',
    podUid: 'pod-1',
    state: 'open',
    direction: 'outbound',
    protocol: 'HBONE',
    isMutualTls: true,
    src: '10.42.1.7:51840',
    dst: '10.42.2.9:15008',
    originalDst: '10.96.0.12:80',
    hboneAuthority: '10.42.2.9:8080',
    source: {
      workload: 'shop-6d9f7c5b8-x2x9q',
      namespace: 'retail',
      identity: 'spiffe://cluster.local/ns/retail/sa/shop',
    },
    destination: { workload: 'cart-0', namespace: 'retail', identity: 'spiffe://cluster.local/ns/retail/sa/cart' },
    service: 'cart.retail.svc.cluster.local',
    openedAt: '2026-01-01T00:00:00Z',
    durationMs: 1_500,
    idleMs: 1_500,
    clientBytes: 11,
    serverBytes: 0,
  });
  assert.equal(traffic.live().length, 1);
});

test('a connection that was refused keeps its reason, its error and its final duration', () => {
  const { traffic, clock } = trafficFixture();
  traffic.open(outbound).close({ code: 'CV-POLICY-DENY', text: 'explicitly denied by: retail/x' });
  clock.advance(60_000);
  const view = traffic.find('c-1');
  assert.equal(view?.state, 'refused');
  assert.equal(view?.reason, 'CV-POLICY-DENY');
  assert.equal(view?.error, 'explicitly denied by: retail/x');
  assert.equal(view?.durationMs, 0);
  assert.deepEqual(traffic.live(), []);
  assert.deepEqual(
    traffic.recentRefusals().map((refused) => refused.id),
    ['c-1'],
  );
});

test('the last 1024 ended connections are remembered, older ones forgotten, open ones never', () => {
  const { traffic } = trafficFixture();
  traffic.open({ ...outbound, id: 'stays' });
  for (let i = 0; i <= 1_024; i++) traffic.open({ ...outbound, id: `n-${i}` }).close();
  assert.equal(traffic.find('n-0'), undefined);
  assert.equal(traffic.find('n-1')?.state, 'complete');
  assert.equal(traffic.find('n-1024')?.state, 'complete');
  assert.equal(traffic.find('stays')?.state, 'open');
});

test('a connection refused before its labels were known can be explained by the id in its log line', () => {
  const { traffic } = trafficFixture();
  traffic.refused({
    direction: 'inbound',
    podUid: 'pod-9',
    src: { ip: 'fd00::1', port: 1 },
    dst: { ip: 'fd00::2', port: 15_008 },
    refusal: { code: 'CV-METHOD', text: 'expected method CONNECT, got GET' },
  });
  const view = traffic.find('early-1');
  assert.equal(view?.reason, 'CV-METHOD');
  assert.equal(view?.src, '[fd00::1]:1');
  assert.deepEqual(traffic.totals(), { live: 0, opened: 0, refused: { 'CV-METHOD': 1 } });
});
