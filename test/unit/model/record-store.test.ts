import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { RecordStore } from '../../../src/model/record-store.ts';
import type { GatewayAddress, Workload } from '../../../src/model/workload.ts';
import { heapAfterCollection } from '../../support/heap.ts';
import { atAddress, atHostname, memberOf, STANDARD, service, workload } from './sample-mesh.ts';

/** Every field of a workload, the optional ones too: a new one does not compile until it is listed. */
const FIELDS = Object.keys({
  uid: 0,
  name: 0,
  namespace: 0,
  trustDomain: 0,
  serviceAccount: 0,
  network: 0,
  ips: 0,
  hostname: 0,
  node: 0,
  clusterId: 0,
  protocol: 0,
  networkMode: 0,
  nativeTunnel: 0,
  workloadName: 0,
  workloadType: 0,
  canonicalName: 0,
  canonicalRevision: 0,
  locality: 0,
  status: 0,
  capacity: 0,
  waypoint: 0,
  networkGateway: 0,
  applicationTunnel: 0,
  authorizationPolicies: 0,
  services: 0,
} satisfies Record<keyof Required<Workload>, 0>) as (keyof Workload)[];

const word = fc.constantFrom('', 'a', 'b');
const gateway: fc.Arbitrary<GatewayAddress | undefined> = fc.constantFrom(
  undefined,
  atAddress('10.0.0.1'),
  atAddress('10.0.0.2'),
  atAddress('10.0.0.1', { network: 'far' }),
  atAddress('10.0.0.1', { hbonePort: 15_009 }),
  atHostname('a.example.com'),
  atHostname('b.example.com'),
  atHostname('a.example.com', { namespace: 'shop' }),
);

/** Few values per field, so that many records agree in all but one. */
const workloads: fc.Arbitrary<Workload> = fc.record({
  uid: word,
  name: word,
  namespace: word,
  trustDomain: word,
  serviceAccount: word,
  network: word,
  ips: fc.array(fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1'), { maxLength: 3 }),
  hostname: word,
  node: word,
  clusterId: word,
  protocol: fc.constantFrom('TCP', 'HBONE'),
  networkMode: fc.constantFrom('Standard', 'HostNetwork'),
  nativeTunnel: fc.boolean(),
  workloadName: word,
  workloadType: fc.constantFrom('deployment', 'cronjob', 'pod', 'job'),
  canonicalName: word,
  canonicalRevision: word,
  locality: fc.record({ region: word, zone: word, subzone: word }, { noNullPrototype: true }),
  status: fc.constantFrom('Healthy', 'Unhealthy'),
  capacity: fc.integer({ min: 0, max: 2 }),
  waypoint: gateway,
  networkGateway: gateway,
  applicationTunnel: fc.constantFrom(
    undefined,
    { protocol: 'NONE' },
    { protocol: 'PROXY' },
    { protocol: 'PROXY', port: 1 },
  ),
  authorizationPolicies: fc.array(word, { maxLength: 2 }),
  services: fc.constantFrom(
    memberOf({}),
    memberOf({ web: {} }),
    memberOf({ web: { 80: 8_080 } }),
    memberOf({ web: { 80: 8_081 } }),
    memberOf({ web: { 81: 8_080 } }),
    memberOf({ api: { 80: 8_080 } }),
    memberOf({ web: { 80: 8_080 }, api: { 80: 8_080 } }),
    memberOf({ api: { 80: 8_080 }, web: { 80: 8_080 } }),
  ),
});

/** As plain values; a map as its entries, because their order counts too. */
function valuesOf(from: Workload): unknown {
  return FIELDS.map((field) => [field, field === 'services' ? [...from.services] : from[field]]);
}

test('a record reads in every field as the workload it was made from, whatever it shares with others', () => {
  fc.assert(
    fc.property(fc.array(workloads, { minLength: 1, maxLength: 10 }), (told) => {
      const store = new RecordStore();
      const records = told.map((one) => store.workload(one));
      assert.deepEqual(records.map(valuesOf), told.map(valuesOf));
    }),
    { numRuns: 300 },
  );
});

test('records that differ in one field only are told apart, each by each', () => {
  const base = workload('pod', { waypoint: atAddress('10.0.0.1'), services: memberOf({ web: { 80: 8_080 } }) });
  fc.assert(
    fc.property(workloads, fc.constantFrom(...FIELDS), (other, field) => {
      const store = new RecordStore();
      const changed = { ...base, [field]: other[field] };
      store.workload(base);
      assert.deepEqual(valuesOf(store.workload(changed)), valuesOf(changed));
    }),
    { numRuns: 500 },
  );
});

test('replicas of one deployment share everything but their own names and addresses', () => {
  const store = new RecordStore();
  const replica = (n: number): Workload =>
    store.workload(
      workload(`web-${n}`, {
        serviceAccount: 'web',
        workloadName: 'web',
        canonicalName: 'web',
        services: memberOf({ web: {} }),
      }),
    );
  const [first, second] = [replica(1), replica(2)];
  assert.equal(first.services, second.services);
  assert.equal(first.authorizationPolicies, second.authorizationPolicies);
  assert.equal(first.locality, second.locality);
});

test('many records under one deployment name stay exact, though they cannot all be shared', () => {
  const store = new RecordStore();
  const told = Array.from({ length: 50 }, (_, n) => workload('pod', { capacity: n }));
  const records = [...told, ...told].map((one) => store.workload(one));
  assert.deepEqual(
    records.map(({ capacity }) => capacity),
    [...told, ...told].map(({ capacity }) => capacity),
  );
});

test('a kept service equals the one that was told, with its balancer and ports shared', () => {
  const store = new RecordStore();
  const told = service('web', {
    vips: [{ network: 'n', ip: '10.1.0.1' }],
    waypoint: atHostname('wp'),
    loadBalancer: { ...STANDARD, mode: 'Strict', routingPreferences: ['Zone'] },
  });
  const [first, second] = [store.service(told), store.service(structuredClone(told))];
  assert.deepEqual(first, told);
  assert.equal(first.ports, second.ports);
  assert.equal(first.loadBalancer, second.loadBalancer);
});

test('what comes and goes is let go, however many different records there were', async () => {
  const store = new RecordStore();
  const before = heapAfterCollection();
  for (let n = 0; n < 100_000; n++) {
    store.workload(workload(`pod-${n}`));
    // What a turn has looked at is held until it ends.
    if (n % 1_000 === 0) await nextTurn();
  }
  await nextTurn();
  const mib = (heapAfterCollection() - before) / 2 ** 20;
  assert.equal(store.workload(workload('pod-0')).name, 'pod-0');
  assert(mib < 32, `${Math.round(mib)} MiB for nothing`);
});
