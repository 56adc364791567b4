/** The DNS of a client in `ns1`: worked examples, and the reference's look-up table. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DnsSettings, dnsVerdict } from '../../../src/model/dns-answer.ts';
import type { MeshIndex } from '../../../src/model/mesh-index.ts';
import type { DnsQuestion } from '../../../src/model/verdict.ts';
import type { Service, Workload } from '../../../src/model/workload.ts';
import { always, DNS_SETTINGS, mesh, seeded, service, vip, workload } from './sample-mesh.ts';

const client = workload('client', { namespace: 'ns1', ips: ['1.1.1.1'] });

function entry(hostname: string, namespace: string, fields: Partial<Service> = {}): Service {
  return service(hostname, { namespace, hostname, vips: [], ...fields });
}

function member(name: string, key: string, fields: Partial<Workload> = {}): Workload {
  return workload(name, { namespace: 'ns1', services: new Map([[key, new Map()]]), ...fields });
}

const headlessKey = 'ns1/headless.ns1.svc.cluster.local';
const dualKey = 'ns1/dual.ns1.svc.cluster.local';
const sixKey = 'ns1/six.ns1.svc.cluster.local';
const worldKey = 'ns1/headless.example.com';

const world = mesh({
  workloads: [
    client,
    member('pod0', headlessKey, { ips: ['30.30.30.30', '30.30.30.31'], hostname: 'pod0.ns1.svc.cluster.local' }),
    member('pod1', headlessKey, { ips: ['30.30.30.40'], network: 'nw2' }),
    member('sick', headlessKey, { ips: ['30.30.30.50'], status: 'Unhealthy' }),
    member('both0', dualKey, { ips: ['31.31.31.31', 'fd31::1'] }),
    member('six0', sixKey, { ips: ['32.32.32.32', 'fd32::1'] }),
    member('far', worldKey, { ips: ['33.33.33.33'] }),
  ],
  services: [
    service('productpage', { namespace: 'ns1', vips: [vip('9.9.9.9')], ipFamilies: 'IPv4' }),
    service('six-only', { namespace: 'ns1', vips: [vip('fd99::9')], ipFamilies: 'IPv6' }),
    service('both', { namespace: 'ns1', vips: [vip('9.9.9.10'), vip('fd99::10')] }),
    service('example', { namespace: 'ns2', vips: [vip('10.10.10.10')] }),
    service('details', { namespace: 'ns2', vips: [vip('10.10.10.11')] }),
    service('a.dotted', { namespace: 'ns1', vips: [vip('10.10.10.12')] }),
    service('nw2-only', { namespace: 'ns1', vips: [vip('20.20.20.20', 'nw2')] }),
    service('two-networks', { namespace: 'ns1', vips: [vip('20.20.20.21', 'nw2'), vip('20.20.20.22')] }),
    service('headless', { namespace: 'ns1' }),
    service('dual', { namespace: 'ns1' }),
    service('six', { namespace: 'ns1', ipFamilies: 'IPv6' }),
    service('empty', { namespace: 'ns1' }),
    service('nslocal', { namespace: 'ns2', vips: [vip('40.40.40.1')], visibility: 'Namespace' }),
    service('own', { namespace: 'ns1', vips: [vip('40.40.40.2')], visibility: 'Namespace' }),
    entry('details.example.com', 'ns2', { vips: [vip('50.50.50.1')] }),
    entry('headless.example.com', 'ns1'),
    entry('ranges.example.com', 'ns1', { cidrVips: [{ network: '', cidr: '50.50.0.0/16' }] }),
    entry('hidden.example.com', 'ns2', { vips: [vip('50.50.50.2')], visibility: 'Namespace' }),
    entry('hidden.example.com', 'ns3', { vips: [vip('50.50.50.3')] }),
    entry('*.wildcard', 'ns1', { vips: [vip('60.60.60.1')] }),
    entry('*.b.wildcard', 'ns1', { vips: [vip('60.60.60.2')] }),
    entry('exact.wildcard', 'ns1', { vips: [vip('60.60.60.3')] }),
    entry('*.ns1.svc.mesh.company.net', 'ns1', { vips: [vip('60.60.60.4')] }),
    service('a', { namespace: 'wildcard', vips: [vip('60.60.60.5')] }),
    entry('shared.com', 'ns2', { vips: [vip('70.70.70.2')] }),
    entry('shared.com', 'ns3', { vips: [vip('70.70.70.3')] }),
    entry('mine.com', 'ns2', { vips: [vip('70.70.70.4')], canonical: true }),
    entry('mine.com', 'ns1', { vips: [vip('70.70.70.5')] }),
    entry('canonical.com', 'ns2', { vips: [vip('70.70.70.6')] }),
    entry('canonical.com', 'ns3', { vips: [vip('70.70.70.7')], canonical: true }),
    entry('canonical.com', 'preferred', { vips: [vip('70.70.70.8')] }),
    entry('preferred.com', 'ns2', { vips: [vip('70.70.70.9')] }),
    entry('preferred.com', 'preferred', { vips: [vip('70.70.70.10')] }),
  ],
});

function ask(index: MeshIndex, type: DnsQuestion['type'], name: string, settings: DnsSettings = DNS_SETTINGS) {
  return dnsVerdict(index, client, { podUid: 'p', name, type }, { settings, random: always(0) });
}

/** What came of it, in one line: `forward`, or result, CNAME and addresses. */
function outcome(...question: Parameters<typeof ask>): string {
  const verdict = ask(...question);
  if (verdict.kind !== 'answer') return verdict.kind;
  const { result, cname, addresses } = verdict;
  if (result !== 'success') return result;
  return [...(cname === undefined ? [] : [`${cname}:`]), ...addresses.toSorted()].join(' ');
}

const UNSUPPORTED = 'service does not support this record type';

for (const [claim, type, name, want] of [
  ['a short name is a service of the own namespace', 'A', 'productpage', '9.9.9.9'],
  [
    'a name behind a search domain is a CNAME',
    'A',
    'productpage.ns1.ns1.svc.cluster.local',
    'productpage.ns1: 9.9.9.9',
  ],
  ['an IPv4 service has no IPv6 address, and exists', 'AAAA', 'productpage.ns1', UNSUPPORTED],
  ['other record types of a service are asked elsewhere', 'other', 'productpage.ns1', 'forward'],
  ['a wildcard covers a name', 'A', 'foo.wildcard', '60.60.60.1'],
  ['the more specific wildcard wins', 'A', 'a.b.wildcard', '60.60.60.2'],
  ['a short name is no service of another namespace', 'A', 'example', 'forward'],
  ['a service with a VIP in another network only has no address', 'A', 'nw2-only.ns1.svc.cluster.local', 'no records'],
  ['a service entry without VIP is asked elsewhere', 'A', 'headless.example.com', 'forward'],
  ['a service of another namespace for itself is hidden', 'A', 'nslocal.ns2.svc.cluster.local', 'forward'],
  ['a pod behind a headless service is asked elsewhere', 'A', 'x.pod0.ns1.svc.cluster.local', 'forward'],
  // Names.
  ['name and namespace', 'A', 'productpage.ns1', '9.9.9.9'],
  ['name, namespace and svc', 'A', 'productpage.ns1.svc', '9.9.9.9'],
  ['the full name', 'A', 'productpage.ns1.svc.cluster.local', '9.9.9.9'],
  ['the short name behind the search domain of the cluster', 'A', 'productpage.cluster.local', 'productpage: 9.9.9.9'],
  ['the short name behind the search domain of services', 'A', 'productpage.svc.cluster.local', 'productpage: 9.9.9.9'],
  ['name and namespace of another namespace', 'A', 'example.ns2', '10.10.10.10'],
  ['the full name in another namespace', 'A', 'details.ns2.svc.cluster.local', '10.10.10.11'],
  [
    'another namespace behind the search domain of the own one',
    'A',
    'details.ns2.ns1.svc.cluster.local',
    'details.ns2: 10.10.10.11',
  ],
  ['a service name with a dot in it', 'A', 'a.dotted', '10.10.10.12'],
  ['upper case is the same name', 'A', 'PRODUCTpage.NS1', '9.9.9.9'],
  ['a CNAME is spelt as asked', 'A', 'ProductPage.Ns1.ns1.SVC.cluster.LOCAL', 'ProductPage.Ns1: 9.9.9.9'],
  ['another cluster domain is asked elsewhere', 'A', 'productpage.ns1.svc.remote.local', 'forward'],
  ['an unknown name is asked elsewhere', 'A', 'unknown.ns1.svc.cluster.local.x', 'forward'],
  ['the root is asked elsewhere', 'A', '', 'forward'],
  ['a host of a service entry in another namespace', 'A', 'details.example.com', '50.50.50.1'],
  [
    'a host of a service entry behind a search domain',
    'A',
    'details.example.com.ns1.svc.cluster.local',
    'details.example.com: 50.50.50.1',
  ],
  ['a service entry with address ranges only is asked elsewhere', 'A', 'ranges.example.com', 'forward'],
  ['the address of a workload that has a host name is asked elsewhere', 'A', 'pod0.ns1.svc.cluster.local', 'forward'],
  // Wildcards.
  ['a host beats a wildcard', 'A', 'exact.wildcard', '60.60.60.3'],
  ['a wildcard does not cover its own domain', 'A', 'wildcard', 'forward'],
  ['a wildcard of another domain', 'A', 'foo.ns1.svc.mesh.company.net', '60.60.60.4'],
  [
    'a wildcard behind a search domain has the address itself, without CNAME',
    'A',
    'foo.wildcard.cluster.local',
    '60.60.60.1',
  ],
  ['a wildcard for the name as it is beats the service that its long form is', 'A', 'a.wildcard', '60.60.60.1'],
  // Addresses.
  ['A of a service on both families', 'A', 'both', '9.9.9.10'],
  ['AAAA of a service on both families', 'AAAA', 'both', 'fd99::10'],
  ['an IPv6 service has no IPv4 address, and exists', 'A', 'six-only', UNSUPPORTED],
  ['AAAA of an IPv6 service', 'AAAA', 'six-only', 'fd99::9'],
  ['VIPs of the own network only', 'A', 'two-networks', '20.20.20.22'],
  ['headless: the first address of each healthy endpoint, in any network', 'A', 'headless', '30.30.30.30 30.30.30.40'],
  ['headless without IPv6 endpoints', 'AAAA', 'headless', 'no records'],
  ['headless on both families, A', 'A', 'dual', '31.31.31.31'],
  ['headless on both families, AAAA', 'AAAA', 'dual', 'fd31::1'],
  ['headless for IPv6 only, though its pods have both', 'A', 'six', UNSUPPORTED],
  ['headless for IPv6 only, AAAA', 'AAAA', 'six', 'fd32::1'],
  ['headless without endpoints exists', 'A', 'empty.ns1.svc.cluster.local', 'no records'],
  // Several services of one name.
  ['a service for its own namespace is seen there', 'A', 'own', '40.40.40.2'],
  ['a hidden namesake leaves the visible one', 'A', 'hidden.example.com', '50.50.50.3'],
  ['without preference the first told', 'A', 'shared.com', '70.70.70.2'],
  ['the own namespace beats the canonical one', 'A', 'mine.com', '70.70.70.5'],
  ['the canonical one beats the others', 'A', 'canonical.com', '70.70.70.7'],
] as const) {
  test(`${claim}: ${type} ${name === '' ? '.' : name}`, () => assert.equal(outcome(world, type, name), want));
}

test('the preferred namespace wins among foreign ones, and not over the canonical service', () => {
  const settings = { ...DNS_SETTINGS, preferredNamespace: 'preferred' };
  assert.equal(outcome(world, 'A', 'preferred.com', settings), '70.70.70.10');
  assert.equal(outcome(world, 'A', 'preferred.com'), '70.70.70.9');
  assert.equal(outcome(world, 'A', 'canonical.com', settings), '70.70.70.7');
  assert.equal(outcome(world, 'A', 'mine.com', settings), '70.70.70.5');
});

test('with IPv6 off every known name has no IPv6 address, and unknown names are asked elsewhere', () => {
  const settings = { ...DNS_SETTINGS, isIpv6Enabled: false };
  assert.equal(outcome(world, 'AAAA', 'both', settings), UNSUPPORTED);
  assert.equal(outcome(world, 'AAAA', 'dual', settings), UNSUPPORTED);
  assert.equal(outcome(world, 'A', 'both', settings), '9.9.9.10');
  assert.equal(outcome(world, 'AAAA', 'unknown.example.com', settings), 'forward');
});

test('names follow the cluster domain', () => {
  const settings = { ...DNS_SETTINGS, clusterDomain: 'corp.example' };
  const index = mesh({
    services: [service('web', { namespace: 'ns1', hostname: 'web.ns1.svc.corp.example', vips: [vip('9.9.9.9')] })],
  });
  assert.equal(outcome(index, 'A', 'web', settings), '9.9.9.9');
  assert.equal(outcome(index, 'A', 'web.ns1.svc.corp.example', settings), '9.9.9.9');
  assert.equal(outcome(index, 'A', 'web'), 'forward');
});

test('a headless service that publishes addresses not ready has the sick ones too', () => {
  const loadBalancer = { mode: 'Standard', routingPreferences: [], healthPolicy: 'AllowAll' } as const;
  const index = mesh({
    services: [service('headless', { namespace: 'ns1', loadBalancer })],
    workloads: [client, member('sick', headlessKey, { ips: ['30.30.30.50'], status: 'Unhealthy' })],
  });
  assert.equal(outcome(index, 'A', 'headless'), '30.30.30.50');
});

test('the order is new with every query, and all addresses are there', () => {
  const vips = Array.from({ length: 8 }, (_, i) => vip(`9.9.9.${i}`));
  const index = mesh({ services: [service('many', { namespace: 'ns1', vips })] });
  const random = seeded(1);
  const firsts = new Set<string | undefined>();
  for (let i = 0; i < 100; i++) {
    const verdict = dnsVerdict(
      index,
      client,
      { podUid: 'p', name: 'many', type: 'A' },
      { settings: DNS_SETTINGS, random },
    );
    assert.equal(verdict.kind, 'answer');
    if (verdict.kind !== 'answer') continue;
    assert.deepEqual(verdict.addresses.toSorted(), vips.map(({ ip }) => ip).toSorted());
    firsts.add(verdict.addresses[0]);
  }
  assert.equal(firsts.size, vips.length);
});

test('every verdict says who asked', () => {
  const want = { pod: 'client', namespace: 'ns1', canonicalName: 'client-app', canonicalRevision: 'v1' };
  for (const [type, name] of [
    ['A', 'productpage'],
    ['A', 'nw2-only'],
    ['A', 'elsewhere.example'],
    ['other', 'productpage'],
  ] as const) {
    const verdict = ask(world, type, name);
    assert.deepEqual(verdict.kind === 'refuse' ? undefined : verdict.client, want);
  }
});
