import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MeshIndex } from '../../../src/model/mesh-index.ts';
import { nextHop } from '../../../src/model/next-hop.ts';
import type { GatewayAddress, LoadBalancer, Service, Workload } from '../../../src/model/workload.ts';
import {
  atAddress,
  atHostname,
  memberOf,
  mesh,
  NOTHING,
  STANDARD,
  seeded,
  service,
  vip,
  workload,
} from './sample-mesh.ts';

const NEAR = { region: 'r1', zone: 'z1', subzone: '' };
const FAR = { region: 'r1', zone: 'z2', subzone: '' };
const CLIENT = workload('client', { ips: ['10.0.0.1', 'fd00::1'], locality: NEAR });
const HBONE = new Map([[15_008, 15_008]]);

/** A waypoint called `name`: a service without VIP, and one instance of it. */
function waypoint(name: string, ips: readonly string[], fields: Partial<Workload> = {}): Workload {
  return workload(name, { ips, locality: NEAR, services: memberOf({ [name]: {} }), ...fields });
}

const named = (name: string, fields?: { namespace?: string; hbonePort?: number }): GatewayAddress =>
  atHostname(`${name}.default.svc.cluster.local`, fields);

function weighted(...weights: readonly [GatewayAddress, number][]): Partial<Service> {
  return { weightedWaypoints: weights.map(([destination, weight]) => ({ destination, weight })) };
}

/** Where connections to `web` go, over many draws: `kind instance address port`, or the reason to refuse. */
function ways(index: MeshIndex, target = { ip: '10.1.0.1', port: 80 }): string[] {
  const random = seeded(9);
  const seen = new Set<string>();
  for (let i = 0; i < 100; i++) {
    const hop = nextHop(index, { source: CLIENT, clientIp: '10.0.0.1', target }, random);
    if (hop.kind === 'refuse') seen.add(`${hop.refusal.code} ${hop.refusal.text}`);
    else if (hop.kind === 'resolve') seen.add(`${hop.kind} ${hop.upstream.hostname}`);
    else seen.add(`${hop.kind} ${hop.upstream?.name} ${hop.address.ip} ${hop.address.port}`);
  }
  return [...seen].toSorted();
}

const PRIMARY = waypoint('primary', ['10.0.0.8']);
const CANARY = waypoint('canary', ['10.0.0.9']);
const BOTH = [service('primary', { ports: HBONE }), service('canary', { ports: HBONE })];
const STRICT_ZONE: LoadBalancer = { ...STANDARD, mode: 'Strict', routingPreferences: ['Zone'] };

const VIA_PRIMARY = 'hbone primary 10.0.0.8 15008';
const VIA_CANARY = 'hbone canary 10.0.0.9 15008';
const noInstance = (name: string): string =>
  `CV-WAYPOINT-UNKNOWN unknown waypoint: default/${name}.default.svc.cluster.local has no instance that can serve`;

const rows: readonly {
  readonly name: string;
  readonly web: Partial<Service>;
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly target?: string;
  readonly want: readonly string[];
}[] = [
  {
    name: 'weighted waypoints given by name both take connections',
    web: { waypoint: named('primary'), ...weighted([named('primary'), 90], [named('canary'), 10]) },
    want: [VIA_CANARY, VIA_PRIMARY],
  },
  {
    name: 'a canary with weight 0 takes nothing',
    web: { waypoint: named('primary'), ...weighted([named('primary'), 100], [named('canary'), 0]) },
    want: [VIA_PRIMARY],
  },
  {
    name: 'a canary with all the weight takes everything',
    web: { waypoint: named('primary'), ...weighted([named('primary'), 0], [named('canary'), 100]) },
    want: [VIA_CANARY],
  },
  {
    name: 'weights without a single waypoint are enough',
    web: weighted([named('canary'), 1]),
    want: [VIA_CANARY],
  },
  {
    name: 'weights that are all zero, and no single waypoint, refuse',
    web: weighted([named('canary'), 0]),
    want: ['CV-WAYPOINT-UNKNOWN unknown waypoint: no weight is above zero and no single waypoint is set'],
  },
  {
    name: 'a canary nobody knows refuses its share and is not replaced by the primary',
    web: { waypoint: named('primary'), ...weighted([named('gone'), 1]) },
    want: [noInstance('gone')],
  },
  {
    name: 'a passthrough service with weighted waypoints goes through them',
    web: {
      loadBalancer: { ...STANDARD, mode: 'Passthrough', healthPolicy: 'AllowAll' },
      ...weighted([named('canary'), 1]),
    },
    want: [VIA_CANARY],
  },
  {
    name: 'instances of a named waypoint are chosen by the rules of its own service',
    web: { waypoint: named('primary') },
    workloads: [PRIMARY, workload('far', { ips: ['10.0.0.7'], locality: FAR, services: memberOf({ primary: {} }) })],
    services: [service('primary', { ports: HBONE, loadBalancer: STRICT_ZONE })],
    want: [VIA_PRIMARY],
  },
  {
    name: 'a named waypoint whose rules leave no instance refuses',
    web: { waypoint: named('primary') },
    workloads: [waypoint('primary', ['10.0.0.8'], { locality: FAR })],
    services: [service('primary', { ports: HBONE, loadBalancer: STRICT_ZONE })],
    want: [noInstance('primary')],
  },
  {
    name: 'a named waypoint is dialled in the family the client used',
    web: { waypoint: named('primary') },
    workloads: [waypoint('primary', ['10.0.0.8', 'fd00::8'])],
    target: 'fd00:1::1',
    want: ['hbone primary fd00::8 15008'],
  },
  {
    name: 'a named waypoint of the other family alone is still dialled',
    web: { waypoint: named('primary') },
    target: 'fd00:1::1',
    want: [VIA_PRIMARY],
  },
  {
    name: 'a waypoint is found by name whoever may see its service',
    web: { waypoint: named('primary') },
    services: [service('primary', { ports: HBONE, visibility: 'Namespace' })],
    want: [VIA_PRIMARY],
  },
  {
    name: 'a waypoint name counts in the namespace it is given for only',
    web: { waypoint: named('primary', { namespace: 'elsewhere' }) },
    want: [
      'CV-WAYPOINT-UNKNOWN unknown waypoint: elsewhere/primary.default.svc.cluster.local has no instance that can serve',
    ],
  },
  {
    name: 'a named waypoint is dialled on the port its reference asks for, as its service maps it',
    web: { waypoint: named('primary', { hbonePort: 15_018 }) },
    services: [service('primary', { ports: new Map([[15_018, 15_028]]) })],
    want: ['hbone primary 10.0.0.8 15028'],
  },
  {
    name: 'a waypoint service without the port refuses when its instance has no tunnel of its own',
    web: { waypoint: named('primary') },
    services: [service('primary')],
    want: [noInstance('primary')],
  },
  {
    name: 'a waypoint on a host-network pod is found through its service',
    web: { waypoint: named('primary') },
    workloads: [waypoint('primary', ['10.0.0.8'], { networkMode: 'HostNetwork' })],
    want: [VIA_PRIMARY],
  },
];

for (const { name, web, workloads = [PRIMARY, CANARY], services = BOTH, target = '10.1.0.1', want } of rows) {
  test(name, () => {
    const vips = [vip('10.1.0.1'), vip('fd00:1::1')];
    const index = mesh({ workloads, services: [service('web', { vips, ...web }), ...services] });
    assert.deepEqual(ways(index, { ip: target, port: 80 }), want);
  });
}

test('a shift of weights counts from the next connection on', () => {
  const web = service('web', { vips: [vip('10.1.0.1')], ...weighted([named('primary'), 1]) });
  const index = mesh({ workloads: [PRIMARY, CANARY], services: [web, ...BOTH] });
  assert.deepEqual(ways(index), [VIA_PRIMARY]);
  index.apply({ ...NOTHING, services: [{ ...web, ...weighted([named('canary'), 1]) }] });
  assert.deepEqual(ways(index), [VIA_CANARY]);
});

test('a waypoint instance that leaves takes no more connections, and with the last one they are refused', () => {
  const web = service('web', { vips: [vip('10.1.0.1')], waypoint: named('primary') });
  const second = workload('second', { ips: ['10.0.0.7'], locality: NEAR, services: memberOf({ primary: {} }) });
  const index = mesh({ workloads: [PRIMARY, second], services: [web, ...BOTH] });
  assert.deepEqual(ways(index), [VIA_PRIMARY, 'hbone second 10.0.0.7 15008']);
  index.apply({ ...NOTHING, removedWorkloads: [second.uid] });
  assert.deepEqual(ways(index), [VIA_PRIMARY]);
  index.apply({ ...NOTHING, workloads: [{ ...PRIMARY, status: 'Unhealthy' }] });
  assert.deepEqual(ways(index), [noInstance('primary')]);
});

test('a waypoint given by address may be a service or a workload', () => {
  const through = (ip: string): string[] =>
    ways(
      mesh({
        workloads: [PRIMARY],
        services: [
          service('web', { vips: [vip('10.1.0.1')], waypoint: atAddress(ip) }),
          service('primary', { ports: HBONE, vips: [vip('10.1.0.8')] }),
        ],
      }),
    );
  assert.deepEqual(through('10.1.0.8'), [VIA_PRIMARY]);
  assert.deepEqual(through('10.0.0.8'), [VIA_PRIMARY]);
});
