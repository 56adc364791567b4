import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import fc from 'fast-check';
import { ipBytes, parseCidr } from '../../../src/base/ip.ts';
import type { Service, Workload } from '../../../src/model/workload.ts';
import { heapAfterCollection } from '../../support/heap.ts';
import { memberOf, mesh, NOTHING, policy, range, STANDARD, service, vip, workload } from './sample-mesh.ts';

function ranked(name: string, fields: Partial<Workload>): Workload {
  return workload(name, { ips: ['10.0.0.1'], ...fields });
}

test('a VIP belongs to its network only', () => {
  const index = mesh({ services: [service('web', { vips: [vip('10.1.0.1', 'a')] })] });
  assert.equal(index.services.byVip('a', '10.1.0.1')?.name, 'web');
  assert.equal(index.services.byVip('', '10.1.0.1'), undefined);
});

const sharedVip = [
  service('first', { namespace: 'ns1', vips: [vip('10.1.0.1')] }),
  service('official', { namespace: 'ns2', vips: [vip('10.1.0.1')], canonical: true }),
  service('own', { namespace: 'ns3', vips: [vip('10.1.0.1')] }),
  service('private', { namespace: 'ns4', vips: [vip('10.1.0.1')], visibility: 'Namespace' }),
];

for (const [client, want] of [
  ['ns3', 'own'],
  ['ns4', 'private'],
  ['elsewhere', 'official'],
  [undefined, 'official'],
] as const) {
  test(`of a shared VIP ${client ?? 'nobody in particular'} gets the ${want} service`, () => {
    assert.equal(mesh({ services: sharedVip }).services.byVip('', '10.1.0.1', client)?.name, want);
  });
}

test('without a canonical one the first service of a shared VIP is taken', () => {
  const index = mesh({ services: sharedVip.filter(({ canonical }) => !canonical) });
  assert.equal(index.services.byVip('', '10.1.0.1', 'elsewhere')?.name, 'first');
});

test('a namespace-visible service is hidden from others by VIP and by host name, not from askers without namespace', () => {
  const hidden = service('hidden', { namespace: 'secret', vips: [vip('10.1.0.1')], visibility: 'Namespace' });
  const { services } = mesh({ services: [hidden] });
  assert.equal(services.byVip('', '10.1.0.1', 'other'), undefined);
  assert.equal(services.byHostname(hidden.hostname, 'other'), undefined);
  assert.equal(services.byVip('', '10.1.0.1', 'secret')?.name, 'hidden');
  assert.equal(services.byHostname(hidden.hostname, 'secret')?.name, 'hidden');
  assert.equal(services.byVip('', '10.1.0.1')?.name, 'hidden');
  assert.equal(services.byHostname(hidden.hostname)?.name, 'hidden');
});

test('a host name prefers the own namespace, then the canonical service', () => {
  const named = (namespace: string, fields: Partial<Service> = {}): Service =>
    service('ext', { namespace, hostname: 'ext.example.com', ...fields });
  const { services } = mesh({ services: [named('a'), named('b', { canonical: true }), named('c')] });
  assert.equal(services.byHostname('ext.example.com', 'c')?.namespace, 'c');
  assert.equal(services.byHostname('ext.example.com', 'z')?.namespace, 'b');
  assert.equal(services.byKey('a/ext.example.com')?.namespace, 'a');
  assert.equal(services.byKey('z/ext.example.com'), undefined);
});

const ranges = [
  service('wide', { namespace: 'a', cidrVips: [range('10.0.0.0/8')] }),
  service('narrow', { namespace: 'b', cidrVips: [range('10.1.0.0/16')] }),
  service('narrow-official', { namespace: 'c', cidrVips: [range('10.1.0.0/16')], canonical: true }),
  service('six', { namespace: 'a', cidrVips: [range('fd00::/8')] }),
  service('six-narrow', { namespace: 'a', cidrVips: [range('fd00:1::/32')] }),
  service('far', { namespace: 'a', cidrVips: [range('172.16.0.0/12', 'far')] }),
  service('private', { namespace: 'd', cidrVips: [range('10.1.2.0/24')], visibility: 'Namespace' }),
];

const rangeCases: readonly [claim: string, ip: string, client: string, want: string | undefined][] = [
  ['an address in one range gets its service', '10.9.0.1', 'x', 'wide'],
  ['the longest prefix wins, then the canonical one', '10.1.9.1', 'x', 'narrow-official'],
  ['the own namespace wins over a longer prefix', '10.1.9.1', 'a', 'wide'],
  ['the own namespace wins over the canonical one', '10.1.9.1', 'b', 'narrow'],
  ['a hidden range falls through to the next', '10.1.2.1', 'x', 'narrow-official'],
  ['a hidden range is seen by its namespace', '10.1.2.1', 'd', 'private'],
  ['an IPv6 address matches IPv6 ranges', 'fd12::1', 'x', 'six'],
  ['the longest IPv6 prefix wins', 'fd00:1::5', 'x', 'six-narrow'],
  ['an IPv6 address outside matches nothing', '2001:db8::1', 'x', undefined],
  ['a range of another network matches nothing', '172.16.0.1', 'x', undefined],
];

for (const [claim, ip, client, want] of rangeCases) {
  test(claim, () => assert.equal(mesh({ services: ranges }).services.byCidr('', ip, client)?.name, want));
}

const NAMESPACES = ['a', 'b', 'c'] as const;
const anyServices = fc.array(
  fc.record({
    namespace: fc.constantFrom(...NAMESPACES),
    visibility: fc.constantFrom('Public', 'Namespace'),
    canonical: fc.boolean(),
    cidr: fc.constantFrom('10.0.0.0/8', '10.1.0.0/16', '10.1.2.0/24', '0.0.0.0/0', 'fd00::/8', '::/0'),
    network: fc.constantFrom('', 'far'),
  }),
  { maxLength: 8 },
);

test('of all ranges that hold an address the best is taken: own namespace, then prefix length, then canonical, then first', () => {
  fc.assert(
    fc.property(
      anyServices,
      fc.constantFrom('10.1.2.3', '10.1.9.9', '10.9.9.9', '192.0.2.1', 'fd00::1', '2001:db8::1'),
      fc.constantFrom(undefined, ...NAMESPACES, 'd'),
      (list, ip, client) => {
        const services = list.map(({ cidr, network, ...fields }, i) =>
          service(`s${i}`, { ...fields, cidrVips: [range(cidr, network)] }),
        );
        const rank = ({ namespace, cidr, canonical }: (typeof list)[number]): number =>
          (namespace === client ? 1_000 : 0) + 2 * Number(cidr.split('/')[1]) + Number(canonical);
        const fit = list.flatMap((one, i) => {
          const isVisible = one.visibility === 'Public' || client === undefined || one.namespace === client;
          return one.network === '' && isVisible && holds(one.cidr, ip) ? [{ name: `s${i}`, rank: rank(one) }] : [];
        });
        const [best] = fit.toSorted((x, y) => y.rank - x.rank);
        assert.equal(mesh({ services }).services.byCidr('', ip, client)?.name, best?.name);
      },
    ),
    { numRuns: 2_000 },
  );
});

function holds(cidr: string, ip: string): boolean {
  const { bytes, length } = parseCidr(cidr) ?? assert.fail(cidr);
  const bits = (octets: Uint8Array) => Array.from(octets, (octet) => octet.toString(2).padStart(8, '0')).join('');
  const address = ipBytes(ip) ?? assert.fail(ip);
  return bytes.length === address.length && bits(address).startsWith(bits(bytes).slice(0, length));
}

test('an exact VIP comes before a range, and a hidden exact VIP falls through to the range', () => {
  const exact = service('exact', { namespace: 'd', vips: [vip('10.1.2.3')], visibility: 'Namespace' });
  const index = mesh({ services: [...ranges.slice(0, 1), exact] });
  assert.equal(index.owner('', '10.1.2.3', 'd').service?.name, 'exact');
  assert.equal(index.owner('', '10.1.2.3', 'x').service?.name, 'wide');
});

test('an address that is both a VIP and a workload is the service; inside a range it is the workload', () => {
  const index = mesh({
    workloads: [workload('pod', { ips: ['10.0.0.1', '10.0.0.2'] })],
    services: [service('web', { vips: [vip('10.0.0.1')] }), ...ranges],
  });
  assert.equal(index.owner('', '10.0.0.1').service?.name, 'web');
  assert.equal(index.owner('', '10.0.0.2').workload?.name, 'pod');
  assert.deepEqual(index.owner('', '192.0.2.1'), {});
});

const HBONE_POD = ranked('hbone-pod', { uid: 'c//Pod/default/hbone-pod' });
const TCP_POD = ranked('tcp-pod', { uid: 'c//Pod/default/tcp-pod', protocol: 'TCP' });
const HBONE_ENTRY = ranked('hbone-entry', { uid: 'c/networking.istio.io/WorkloadEntry/default/e' });
const TCP_ENTRY = ranked('tcp-entry', { uid: 'c/networking.istio.io/WorkloadEntry/default/t', protocol: 'TCP' });

for (const [claim, workloads, want] of [
  ['a pod with HBONE owns a shared address before anyone', [TCP_ENTRY, HBONE_POD, TCP_POD, HBONE_ENTRY], 'hbone-pod'],
  ['a pod owns it before an entry with HBONE', [HBONE_ENTRY, TCP_POD], 'tcp-pod'],
  ['an entry with HBONE owns it before one without', [HBONE_ENTRY, TCP_ENTRY], 'hbone-entry'],
  ['of equals the last one owns it', [HBONE_POD, { ...HBONE_POD, uid: 'c//Pod/default/z', name: 'later' }], 'later'],
] as const) {
  test(claim, () => assert.equal(mesh({ workloads }).workloads.byAddress('', '10.0.0.1')?.name, want));
}

for (const count of [1, 16, 17, 39]) {
  test(`${count} members of a service that go at once leave the others, in their order`, () => {
    const web = service('web');
    const members = Array.from({ length: 40 }, (_, i) => workload(`w${i}`, { services: memberOf({ web: {} }) }));
    const index = mesh({ workloads: members, services: [web] });
    const gone = new Set(members.filter((_, i) => (i * 7) % 40 < count).map(({ uid }) => uid));
    index.apply({ ...NOTHING, removedWorkloads: [...gone, 'nobody'] });
    assert.deepEqual(
      index.endpoints(web).map(({ uid }) => uid),
      members.map(({ uid }) => uid).filter((uid) => !gone.has(uid)),
    );
  });
}

test('very many workloads with one address and one host name come and go like others', {
  timeout: 60_000,
}, async () => {
  const alike = Array.from({ length: 50_000 }, (_, i) =>
    workload(`w${i}`, { ips: ['10.0.0.1'], hostname: 'db.example' }),
  );
  const index = mesh({ workloads: alike });
  // The timeout is noticed between turns.
  await nextTurn();
  assert.equal(index.workloads.byAddress('', '10.0.0.1')?.name, 'w49999');
  index.apply({ ...NOTHING, removedWorkloads: alike.slice(0, -1).map(({ uid }) => uid) });
  await nextTurn();
  assert.equal(index.workloads.byAddress('', '10.0.0.1')?.name, 'w49999');
  assert.equal(index.workloads.byHostname('default', 'db.example')?.name, 'w49999');
});

test('host-network workloads are never found by address, but by UID', () => {
  const { workloads } = mesh({ workloads: [ranked('host', { networkMode: 'HostNetwork' })] });
  assert.equal(workloads.byAddress('', '10.0.0.1'), undefined);
  assert.equal(workloads.byUid('Kubernetes//Pod/default/host')?.name, 'host');
});

test('a workload is found by address in its own network only', () => {
  const { workloads } = mesh({ workloads: [ranked('a', { network: 'n1' }), ranked('b', { network: 'n2' })] });
  assert.equal(workloads.byAddress('n1', '10.0.0.1')?.name, 'a');
  assert.equal(workloads.byAddress('n2', '10.0.0.1')?.name, 'b');
  assert.equal(workloads.byAddress('', '10.0.0.1'), undefined);
});

test('a later record with the same UID takes the place of the earlier one everywhere', () => {
  const { workloads } = mesh({ workloads: [ranked('pod', {}), ranked('pod', { ips: ['10.0.0.9'] })] });
  assert.equal(workloads.byAddress('', '10.0.0.1'), undefined);
  assert.equal(workloads.byAddress('', '10.0.0.9')?.name, 'pod');
});

test('a captured pod is known only when node, name, namespace and service account all agree', () => {
  const index = mesh({ workloads: [workload('pod'), workload('pod', { uid: 'other', namespace: 'ns2' })] });
  const pod = { node: 'node-1', name: 'pod', namespace: 'default', serviceAccount: 'pod' };
  assert.equal(index.localWorkload(pod)?.namespace, 'default');
  assert.equal(index.localWorkload({ ...pod, namespace: 'ns2' })?.namespace, 'ns2');
  for (const part of ['node', 'name', 'namespace', 'serviceAccount'] as const) {
    assert.equal(index.localWorkload({ ...pod, [part]: 'else' }), undefined, part);
  }
});

test('where nodes and pods of two clusters have the same names, the record of the own cluster is that of a captured pod', () => {
  const [far, near] = ['far', 'near'].map((clusterId) =>
    workload('web', { uid: `${clusterId}//Pod/default/web`, clusterId }),
  );
  assert(far !== undefined && near !== undefined);
  const pod = { node: 'node-1', name: 'web', namespace: 'default', serviceAccount: 'web', clusterId: 'near' };
  for (const workloads of [
    [far, near],
    [near, far],
  ]) {
    assert.equal(mesh({ workloads }).localWorkload(pod)?.uid, near.uid);
  }
  // A control plane may call the cluster by another name than we do.
  assert.equal(mesh({ workloads: [far] }).localWorkload(pod)?.uid, far.uid);
});

test('unhealthy endpoints take no traffic unless the service says so', () => {
  const members = [
    workload('well', { services: memberOf({ web: {} }) }),
    workload('ill', { services: memberOf({ web: {} }), status: 'Unhealthy' }),
  ];
  const names = (web: Service): string[] =>
    mesh({ workloads: members, services: [web] })
      .endpoints(web)
      .map(({ name }) => name);
  assert.deepEqual(names(service('web')), ['well']);
  assert.deepEqual(names(service('web', { loadBalancer: { ...STANDARD, healthPolicy: 'AllowAll' } })), ['well', 'ill']);
  assert.deepEqual(mesh({ workloads: members }).memberCounts(service('web')), { healthy: 1, total: 2 });
});

test('endpoints of a service that has not arrived are staged, and join it when it has', () => {
  const member = workload('well', { services: memberOf({ web: { 80: 8_080 } }) });
  const key = 'default/web.default.svc.cluster.local';
  const staged = [...mesh({ workloads: [member] }).stagedEndpoints()];
  assert.deepEqual(staged, [[key, [{ workloadUid: member.uid, ports: new Map([[80, 8_080]]), status: 'Healthy' }]]]);
  const joined = mesh({ workloads: [member], services: [service('web')] });
  assert.deepEqual([...joined.stagedEndpoints()], []);
  assert.equal(joined.endpoints(service('web')).length, 1);
});

test('an endpoint joins a service by namespace and host name, not by host name alone', () => {
  const member = workload('well', { services: memberOf({ web: {} }) });
  const foreign = service('web', { namespace: 'other', hostname: 'web.default.svc.cluster.local' });
  assert.equal(mesh({ workloads: [member], services: [foreign] }).endpoints(foreign).length, 0);
});

test('a policy whose scope changes leaves the namespace it governed', () => {
  const server = workload('server');
  const deny = policy('p', { action: 'Deny', rules: [[]] });
  assert.equal(mesh({ policies: [deny] }).policiesFor(server).deny.length, 1);
  const moved = mesh({ policies: [deny, { ...deny, scope: 'WorkloadSelector' }] });
  assert.equal(moved.policiesFor(server).deny.length, 0);
});

test('a policy that selects a workload twice is evaluated once', () => {
  const server = workload('server', { authorizationPolicies: ['default/p'] });
  assert.equal(mesh({ policies: [policy('p', { rules: [[]] })] }).policiesFor(server).allow.length, 1);
});

test('100,000 replicas of 10,000 deployments cost under 600 bytes each', { timeout: 60_000 }, () => {
  const count = 100_000;
  const before = heapAfterCollection();
  const index = mesh({ services: [service('web')] });
  for (let i = 0; i < count; i++) index.apply({ ...NOTHING, workloads: [replica(i)] });
  const bytes = (heapAfterCollection() - before) / count;
  assert.equal(index.workloads.byAddress('', '10.1.0.1')?.name, 'deploy-6553-7');
  assert(bytes < 600, `${Math.round(bytes)} bytes per workload`);
});

/** As from a decoder: every string and every map its own. */
function replica(i: number): Workload {
  const deployment = `deploy-${Math.floor(i / 10)}`;
  const name = Buffer.from(`${deployment}-${i % 10}`).toString();
  return workload(name, {
    ips: [Buffer.from(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`).toString()],
    serviceAccount: deployment,
    workloadName: deployment,
    canonicalName: deployment,
    services: memberOf({ web: { 80: 8_080 } }),
  });
}
