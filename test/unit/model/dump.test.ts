import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr } from '../../../src/base/ip.ts';
import { dumpMesh } from '../../../src/model/dump.ts';
import { atAddress, atHostname, memberOf, mesh, policy, service, vip, workload } from './sample-mesh.ts';

function dumped(state: Parameters<typeof mesh>[0]): unknown {
  const { workloads, services, policies, stagedServices } = dumpMesh(mesh(state));
  const lists = { workloads: [...workloads], services: [...services], policies: [...policies] };
  return JSON.parse(JSON.stringify({ ...lists, stagedServices }));
}

test('an empty mesh dumps its four keys', () => {
  assert.deepEqual(dumped({}), { policies: [], services: [], stagedServices: {}, workloads: [] });
});

test('a workload dumps what is set and omits what is not', () => {
  const bare = workload('bare', { workloadName: '', canonicalName: '', canonicalRevision: '', node: '' });
  const full = workload('full', {
    ips: ['10.0.0.1', 'fd00::1'],
    network: 'n1',
    hostname: 'full.example.com',
    nativeTunnel: true,
    applicationTunnel: { protocol: 'PROXY', port: 15_088 },
    authorizationPolicies: ['default/p'],
    locality: { region: 'r', zone: 'z', subzone: '' },
    waypoint: atHostname('waypoint.default.svc.cluster.local'),
    networkGateway: atAddress('192.0.2.1', { network: 'n2' }),
    services: memberOf({ web: {}, api: {} }),
    capacity: 4,
    status: 'Unhealthy',
  });
  assert.deepEqual(dumped({ workloads: [full, bare], services: [service('web'), service('api')] }), {
    policies: [],
    stagedServices: {},
    services: [service('api'), service('web')].map(({ name }) => ({
      name,
      namespace: 'default',
      hostname: `${name}.default.svc.cluster.local`,
      vips: [],
      ports: { 80: 8_080 },
      endpoints: {},
      canonical: false,
      visibility: 'Public',
    })),
    workloads: [
      {
        workloadIps: [],
        protocol: 'HBONE',
        networkMode: 'Standard',
        uid: 'Kubernetes//Pod/default/bare',
        name: 'bare',
        namespace: 'default',
        trustDomain: 'cluster.local',
        serviceAccount: 'bare',
        workloadType: 'deployment',
        status: 'Healthy',
        clusterId: 'Kubernetes',
        capacity: 1,
      },
      {
        workloadIps: ['10.0.0.1', 'fd00::1'],
        waypoint: { destination: 'default/waypoint.default.svc.cluster.local', hboneMtlsPort: 15_008 },
        networkGateway: { destination: 'n2/192.0.2.1', hboneMtlsPort: 15_008 },
        protocol: 'HBONE',
        networkMode: 'Standard',
        uid: 'Kubernetes//Pod/default/full',
        name: 'full',
        namespace: 'default',
        trustDomain: 'cluster.local',
        serviceAccount: 'full',
        network: 'n1',
        workloadName: 'full-deploy',
        workloadType: 'deployment',
        canonicalName: 'full-app',
        canonicalRevision: 'v1',
        hostname: 'full.example.com',
        node: 'node-1',
        nativeTunnel: true,
        applicationTunnel: { protocol: 'PROXY', port: 15_088 },
        authorizationPolicies: ['default/p'],
        status: 'Unhealthy',
        clusterId: 'Kubernetes',
        locality: { region: 'r', zone: 'z' },
        services: ['default/api.default.svc.cluster.local', 'default/web.default.svc.cluster.local'],
        capacity: 4,
      },
    ],
  });
});

test('a service dumps its endpoints, waypoints and balancer', () => {
  const web = service('web', {
    vips: [vip('10.1.0.1'), vip('fd00::1', 'n1')],
    cidrVips: [{ network: '', cidr: '10.2.0.0/16' }],
    subjectAltNames: ['spiffe://td/ns/a/sa/b'],
    waypoint: atAddress('10.0.0.9'),
    weightedWaypoints: [{ destination: atAddress('10.0.0.9'), weight: 3 }],
    loadBalancer: { mode: 'Failover', routingPreferences: ['Region', 'Zone'], healthPolicy: 'AllowAll' },
    ipFamilies: 'Dual',
    canonical: true,
    visibility: 'Namespace',
  });
  const member = workload('a', { services: memberOf({ web: { 80: 9_090 } }), status: 'Unhealthy' });
  const { services } = dumped({ workloads: [member], services: [web] }) as { services: unknown[] };
  assert.deepEqual(services, [
    {
      name: 'web',
      namespace: 'default',
      hostname: 'web.default.svc.cluster.local',
      vips: ['/10.1.0.1', 'n1/fd00::1'],
      cidrVips: [{ network: '', cidr: '10.2.0.0/16' }],
      ports: { 80: 8_080 },
      endpoints: { [member.uid]: { workloadUid: member.uid, port: { 80: 9_090 }, status: 'Unhealthy' } },
      subjectAltNames: ['spiffe://td/ns/a/sa/b'],
      waypoint: { destination: '/10.0.0.9', hboneMtlsPort: 15_008 },
      weightedWaypoints: [{ destination: { destination: '/10.0.0.9', hboneMtlsPort: 15_008 }, weight: 3 }],
      loadBalancer: { routingPreferences: ['Region', 'Zone'], mode: 'Failover', healthPolicy: 'AllowAll' },
      ipFamilies: 'Dual',
      canonical: true,
      visibility: 'Namespace',
    },
  ]);
});

test('endpoints without their service dump as staged', () => {
  const member = workload('a', { services: memberOf({ web: { 80: 9_090 } }) });
  const { stagedServices } = dumped({ workloads: [member] }) as { stagedServices: unknown };
  assert.deepEqual(stagedServices, {
    'default/web.default.svc.cluster.local': {
      [member.uid]: { workloadUid: member.uid, port: { 80: 9_090 }, status: 'Healthy' },
    },
  });
});

test('policies dump sorted by key, with matches as the mesh file spells them, and rejected ones with the reason', () => {
  const range = parseCidr('10.0.0.0/8');
  assert(range !== undefined);
  const full = policy('b', {
    action: 'Deny',
    rules: [
      [
        [
          {
            principals: [
              { kind: 'exact', value: 'td/ns/a/sa/b' },
              { kind: 'prefix', value: 'td/' },
            ],
            notPrincipals: [{ kind: 'suffix', value: '/x' }, { kind: 'presence' }],
            serviceAccounts: [{ namespace: 'n', serviceAccount: 's' }],
            sourceIps: [range],
            destinationPorts: [80],
          },
        ],
      ],
    ],
  });
  const rejected = { name: 'a', namespace: 'default', scope: 'Namespace', why: 'bad range' } as const;
  const { policies } = dumped({ policies: [full], rejectedPolicies: [rejected] }) as { policies: unknown[] };
  assert.deepEqual(
    policies,
    [
      { ...rejected, why: undefined, action: 'Deny', dryRun: false, rules: [], rejected: 'bad range' },
      {
        name: 'b',
        namespace: 'default',
        scope: 'Namespace',
        action: 'Deny',
        dryRun: false,
        rules: [
          [
            [
              {
                serviceAccounts: [{ namespace: 'n', serviceAccount: 's' }],
                principals: [{ Exact: 'td/ns/a/sa/b' }, { Prefix: 'td/' }],
                notPrincipals: [{ Suffix: '/x' }, { Presence: [] }],
                sourceIps: ['10.0.0.0/8'],
                destinationPorts: [80],
              },
            ],
          ],
        ],
      },
    ].map((entry) => JSON.parse(JSON.stringify(entry)) as unknown),
  );
});
