import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pickIp, pickWeighted, selectEndpoint } from '../../../src/model/load-balance.ts';
import type { MeshIndex } from '../../../src/model/mesh-index.ts';
import { scopeRank } from '../../../src/model/scope-rank.ts';
import type { LoadBalancer, Scope, Service, Workload } from '../../../src/model/workload.ts';
import { memberOf, mesh, NOTHING, STANDARD, seeded, service, workload } from './sample-mesh.ts';

const SERVICES = memberOf({ web: {} });
const SOURCE = workload('source', {
  network: 'n1',
  clusterId: 'c1',
  node: 'node-1',
  locality: { region: 'r1', zone: 'z1', subzone: 's1' },
});

function endpoint(name: string, place: Partial<Workload> = {}): Workload {
  return workload(name, { ips: ['10.0.0.9'], ...near(SOURCE), services: SERVICES, ...place });
}

function near({ network, clusterId, node, locality }: Workload): Partial<Workload> {
  return { network, clusterId, node, locality };
}

function balanced(mode: LoadBalancer['mode'], ...routingPreferences: Scope[]): LoadBalancer {
  return { ...STANDARD, mode, routingPreferences };
}

/** Names that are ever chosen, over many draws. */
function chosen(workloads: readonly Workload[], loadBalancer: LoadBalancer, ports = new Map([[80, 8_080]])): string[] {
  const web = service('web', { loadBalancer, ports });
  return chosenFrom(mesh({ workloads, services: [web] }), web, SOURCE);
}

function chosenFrom(index: MeshIndex, web: Service, source: Workload): string[] {
  const random = seeded(3);
  const names = new Set<string>();
  for (let i = 0; i < 200; i++) {
    const upstream = selectEndpoint(index, { source, service: web, port: 80 }, random);
    if (upstream !== undefined) names.add(upstream.workload.name);
  }
  return [...names].sort();
}

const OTHER_ZONE = { locality: { region: 'r1', zone: 'z2', subzone: 's1' } };
const OTHER_REGION = { locality: { region: 'r2', zone: 'z1', subzone: 's1' } };
const OTHER_SUBZONE = { locality: { region: 'r1', zone: 'z1', subzone: 's2' } };
const FAR = {
  network: 'n2',
  networkGateway: { kind: 'address', network: 'n2', ip: '1.1.1.1', hbonePort: 15_008 },
} as const;

const rows: readonly [
  claim: string,
  workloads: readonly Workload[],
  balancer: LoadBalancer,
  want: readonly string[],
][] = [
  ['without rules all endpoints are used', [endpoint('a'), endpoint('b', OTHER_REGION)], STANDARD, ['a', 'b']],
  ['without endpoints there is none', [], STANDARD, []],
  [
    'strict keeps only what matches every scope',
    [endpoint('a'), endpoint('b', OTHER_ZONE)],
    balanced('Strict', 'Region', 'Zone'),
    ['a'],
  ],
  ['strict with no match has no endpoint', [endpoint('b', OTHER_ZONE)], balanced('Strict', 'Region', 'Zone'), []],
  ['strict without scopes keeps all', [endpoint('a'), endpoint('b', OTHER_ZONE)], balanced('Strict'), ['a', 'b']],
  [
    'failover prefers the most leading matches',
    [endpoint('a', OTHER_SUBZONE), endpoint('b', OTHER_ZONE), endpoint('c', OTHER_REGION)],
    balanced('Failover', 'Region', 'Zone', 'Subzone'),
    ['a'],
  ],
  [
    'failover takes the next rank when the best is empty',
    [endpoint('b', OTHER_ZONE), endpoint('c', OTHER_REGION)],
    balanced('Failover', 'Region', 'Zone', 'Subzone'),
    ['b'],
  ],
  [
    'failover counts leading matches only',
    [
      endpoint('b', { locality: { region: 'r2', zone: 'z1', subzone: 's1' } }),
      endpoint('c', { locality: { region: 'r3', zone: 'z3', subzone: 's3' } }),
    ],
    balanced('Failover', 'Region', 'Zone', 'Subzone'),
    ['b', 'c'],
  ],
  ['failover with nothing near takes anybody', [endpoint('c', OTHER_REGION)], balanced('Failover', 'Region'), ['c']],
  [
    'the node can be preferred',
    [endpoint('a'), endpoint('b', { node: 'node-2' })],
    balanced('Failover', 'Node'),
    ['a'],
  ],
  [
    'the cluster can be preferred',
    [endpoint('a'), endpoint('b', { clusterId: 'c2' })],
    balanced('Failover', 'Cluster'),
    ['a'],
  ],
  [
    'the own network first outranks any other match',
    [endpoint('local', OTHER_REGION), endpoint('far', FAR)],
    balanced('Failover', 'Network', 'Region', 'Zone'),
    ['local'],
  ],
  [
    'of other networks the nearer region is still preferred',
    [endpoint('far', FAR), endpoint('farther', { ...FAR, ...OTHER_REGION })],
    balanced('Failover', 'Network', 'Region', 'Zone'),
    ['far'],
  ],
  [
    'within the own network the nearer region is preferred',
    [endpoint('a'), endpoint('b', OTHER_REGION)],
    balanced('Failover', 'Network', 'Region'),
    ['a'],
  ],
  [
    'the network in another place is a scope like any other',
    [endpoint('a', { ...FAR }), endpoint('b', OTHER_REGION)],
    balanced('Failover', 'Region', 'Network'),
    ['a'],
  ],
  ['an endpoint with capacity 0 takes nothing', [endpoint('a', { capacity: 0 }), endpoint('b')], STANDARD, ['b']],
  ['with capacity 0 everywhere there is no endpoint', [endpoint('a', { capacity: 0 })], STANDARD, []],
  [
    'a near endpoint with capacity 0 does not hide a far one',
    [endpoint('a', { capacity: 0 }), endpoint('b', OTHER_REGION)],
    balanced('Failover', 'Region'),
    ['b'],
  ],
  ['an endpoint without address or name is skipped', [endpoint('a', { ips: [] }), endpoint('b')], STANDARD, ['b']],
  [
    'in another network without gateway it is skipped as well',
    [endpoint('a', { ips: [], network: 'n2' }), endpoint('b')],
    STANDARD,
    ['b'],
  ],
  ['in another network with a gateway it is used', [endpoint('a', { ...FAR, ips: [] })], STANDARD, ['a']],
  ['a passthrough service selects nobody', [endpoint('a')], balanced('Passthrough'), []],
];

for (const [claim, workloads, balancer, want] of rows) {
  test(claim, () => assert.deepEqual(chosen(workloads, balancer), want));
}

test('strict with a near one gone stays empty rather than going far', () => {
  assert.deepEqual(
    chosen([endpoint('a', { status: 'Unhealthy' }), endpoint('b', OTHER_REGION)], balanced('Strict', 'Region')),
    [],
  );
});

const TUNNELLED = { applicationTunnel: { protocol: 'PROXY', port: 15_088 } } as const;

for (const [claim, own, ofService, tunnel, want] of [
  ['the mapping of the endpoint wins', { 80: 9_090 }, 8_080, {}, 9_090],
  ['else the target port of the service', {}, 8_080, {}, 8_080],
  ['else, with an application tunnel, the service port itself', {}, 0, TUNNELLED, 80],
  ['else there is no endpoint', {}, 0, {}, undefined],
  ['an application tunnel without port does not help', {}, 0, { applicationTunnel: { protocol: 'NONE' } }, undefined],
] as const) {
  test(`target port: ${claim}`, () => {
    const web = service('web', { ports: new Map([[80, ofService]]) });
    const index = mesh({
      workloads: [endpoint('a', { services: memberOf({ web: own }), ...tunnel })],
      services: [web],
    });
    assert.equal(selectEndpoint(index, { source: SOURCE, service: web, port: 80 }, seeded(1))?.port, want);
  });
}

test('a service without the port has no endpoint, even one that maps it', () => {
  const web = service('web');
  const index = mesh({ workloads: [endpoint('a', { services: memberOf({ web: { 81: 8_081 } }) })], services: [web] });
  assert.equal(selectEndpoint(index, { source: SOURCE, service: web, port: 81 }, seeded(1)), undefined);
});

test('capacity shares connections in proportion', () => {
  const web = service('web');
  const index = mesh({ workloads: [endpoint('small'), endpoint('big', { capacity: 3 })], services: [web] });
  const random = seeded(11);
  let big = 0;
  for (let i = 0; i < 4_000; i++) {
    if (selectEndpoint(index, { source: SOURCE, service: web, port: 80 }, random)?.workload.name === 'big') big++;
  }
  assert(Math.abs(big - 3_000) < 120, `big got ${big} of 4000`);
});

test('in a large service only fit members are chosen, in proportion to their capacity', () => {
  const members = Array.from({ length: 300 }, (_, i) =>
    endpoint(`e${i}`, { status: i % 3 === 0 ? 'Unhealthy' : 'Healthy', capacity: i % 3 === 1 ? 1 : 3 }),
  );
  const web = service('web');
  const index = mesh({ workloads: members, services: [web] });
  const random = seeded(5);
  let big = 0;
  const chosenNames = new Set<string>();
  for (let i = 0; i < 8_000; i++) {
    const { workload } = selectEndpoint(index, { source: SOURCE, service: web, port: 80 }, random) ?? {};
    assert.equal(workload?.status, 'Healthy');
    chosenNames.add(workload.name);
    if (workload.capacity === 3) big++;
  }
  assert.equal(chosenNames.size, 200);
  assert(Math.abs(big - 6_000) < 200, `the big ones got ${big} of 8000`);
});

test('the one fit member of a large service is always found', () => {
  const members = Array.from({ length: 300 }, (_, i) => endpoint(`e${i}`, i === 177 ? {} : { capacity: 0 }));
  assert.deepEqual(chosen(members, STANDARD), ['e177']);
  assert.deepEqual(
    chosen(
      members.map((member) => ({ ...member, capacity: 0 })),
      STANDARD,
    ),
    [],
  );
});

/** From one per zone to so many that most of them are never looked at. */
for (const count of [1, 2, 7, 63, 64, 300]) {
  for (const balancer of [
    STANDARD,
    balanced('Strict', 'Region', 'Zone'),
    balanced('Failover', 'Region', 'Zone'),
    balanced('Failover', 'Network', 'Zone', 'Region'),
    balanced('Failover', 'Node', 'Zone'),
  ]) {
    test(`of ${count} members ${balancer.mode} by ${balancer.routingPreferences.join()} chooses the nearest that are fit, and each`, () => {
      const places = [OTHER_REGION, OTHER_ZONE, { ...FAR, ...OTHER_SUBZONE }, OTHER_SUBZONE, {}, {}];
      const members = Array.from({ length: count }, (_, i) =>
        endpoint(`e${i}`, {
          node: 'node-2',
          ...places[i % places.length],
          status: i % 5 === 3 ? 'Unhealthy' : 'Healthy',
        }),
      );
      const ranked = members
        .filter(({ status }) => status === 'Healthy')
        .map((member) => ({ name: member.name, rank: scopeRank(balancer, SOURCE, member) ?? -1 }))
        .filter(({ rank }) => rank >= 0);
      const best = Math.max(...ranked.map(({ rank }) => rank));
      const nearest = ranked.filter(({ rank }) => rank === best).map(({ name }) => name);
      const web = service('web', { loadBalancer: balancer });
      const index = mesh({ workloads: members, services: [web] });
      const counts = new Map(nearest.map((name) => [name, 0]));
      const random = seeded(7);
      for (let i = 0; i < 40 * nearest.length; i++) {
        const { name = '' } = selectEndpoint(index, { source: SOURCE, service: web, port: 80 }, random)?.workload ?? {};
        const before = counts.get(name);
        assert(before !== undefined, `${name} is not among the nearest`);
        counts.set(name, before + 1);
      }
      const [fewest, most] = [Math.min(...counts.values()), Math.max(...counts.values())];
      if (nearest.length > 0)
        assert(fewest >= 10 && most <= 80, `chosen ${fewest} to ${most} times instead of about 40`);
    });
  }
}

test('a service whose rules change chooses by the new ones, among the same members', () => {
  const web = service('web', { loadBalancer: balanced('Strict', 'Zone') });
  const ill = endpoint('ill', { ...OTHER_ZONE, status: 'Unhealthy' });
  const index = mesh({ workloads: [endpoint('a'), endpoint('b', OTHER_ZONE), ill], services: [web] });
  const names = (changed: Service): string[] => {
    index.apply({ ...NOTHING, services: [changed] });
    return chosenFrom(index, changed, SOURCE);
  };
  assert.deepEqual(names(web), ['a']);
  assert.deepEqual(names({ ...web, loadBalancer: STANDARD }), ['a', 'b']);
  assert.deepEqual(names({ ...web, loadBalancer: { ...STANDARD, healthPolicy: 'AllowAll' } }), ['a', 'b', 'ill']);
  assert.deepEqual(names({ ...web, loadBalancer: STANDARD, ports: new Map() }), []);
});

test('clients in different places choose apart from each other', () => {
  const web = service('web', { loadBalancer: balanced('Failover', 'Zone') });
  const index = mesh({
    workloads: [endpoint('a'), endpoint('b', OTHER_ZONE), endpoint('c', { ...FAR, ...OTHER_ZONE, ips: [] })],
    services: [web],
  });
  const elsewhere = (place: Partial<Workload>): Workload => workload('source', { ...near(SOURCE), ...place });
  assert.deepEqual(chosenFrom(index, web, SOURCE), ['a']);
  assert.deepEqual(chosenFrom(index, web, elsewhere(OTHER_ZONE)), ['b', 'c']);
  // Without an address an endpoint is reached through the gateway of its network, and not from inside it.
  assert.deepEqual(chosenFrom(index, web, elsewhere({ ...OTHER_ZONE, network: 'n2' })), ['b']);
});

test('a weighted pick is one of the items with weight, for any draw', () => {
  const items = fc.array(fc.record({ weight: fc.nat(5) }), { maxLength: 6 });
  fc.assert(
    fc.property(items, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (list, draw) => {
      const picked = pickWeighted(list, ({ weight }) => weight, { next: () => draw, hex: () => '' });
      const hasWeight = list.some(({ weight }) => weight > 0);
      assert.equal(picked !== undefined, hasWeight);
      assert(picked === undefined || picked.weight > 0);
    }),
  );
});

const DUAL = workload('dual', { ips: ['10.0.0.9', 'fd00::9', '10.0.0.10'] });

for (const [claim, dialled, families, want] of [
  ['the dialled address is kept', '10.0.0.10', undefined, '10.0.0.10'],
  ['the dialled address is kept whatever the service says', '10.0.0.10', 'IPv6', '10.0.0.10'],
  ['the family of the client is preferred', 'fd00:1::1', undefined, 'fd00::9'],
  ['the family of the client is preferred on dual stack', '10.1.0.1', 'Dual', '10.0.0.9'],
  ['an IPv4-only service forces IPv4', 'fd00:1::1', 'IPv4', '10.0.0.9'],
  ['an IPv6-only service forces IPv6', '10.1.0.1', 'IPv6', 'fd00::9'],
] as const) {
  test(claim, () => assert.equal(pickIp(DUAL, dialled, families), want));
}

test('the other family is better than none', () => {
  assert.equal(pickIp(workload('v4', { ips: ['10.0.0.9'] }), 'fd00:1::1'), '10.0.0.9');
  assert.equal(pickIp(workload('none'), 'fd00:1::1'), undefined);
});
