import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HostPort } from '../../../src/base/ip.ts';
import { parseHostPort } from '../../../src/base/ip.ts';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { type NextHop, nextHop } from '../../../src/model/next-hop.ts';
import type { Workload } from '../../../src/model/workload.ts';
import {
  always,
  atAddress,
  atHostname,
  memberOf,
  mesh,
  STANDARD,
  seeded,
  service,
  vip,
  workload,
} from './sample-mesh.ts';

const CLIENT = workload('client', { ips: ['10.0.0.1', 'fd00::1'] });
const UNHEALTHY_LOCAL = { status: 'Unhealthy' } as const;
const FAILOVER_NETWORK = { ...STANDARD, mode: 'Failover', routingPreferences: ['Network'] } as const;
const PASSTHROUGH = { ...STANDARD, mode: 'Passthrough', healthPolicy: 'AllowAll' } as const;
const WEB = 'default/web.default.svc.cluster.local';

interface Row {
  readonly name: string;
  readonly state: Partial<MeshState>;
  readonly target: string;
  readonly source?: Workload;
  readonly clientIp?: string;
  readonly want: Summary;
}

/** What a row claims; absent fields must be absent. */
interface Summary {
  readonly kind: NextHop['kind'];
  readonly to?: string;
  readonly authority?: string;
  readonly upstream?: string;
  readonly service?: string;
  readonly expected?: readonly string[];
  /** Double HBONE: who the far end must prove to be. */
  readonly inner?: readonly string[];
  readonly code?: string;
  readonly text?: string;
}

const id = (name: string): string => `spiffe://cluster.local/ns/default/sa/${name}`;

const remoteCluster = {
  workloads: [
    workload('remote', {
      network: 'remote',
      services: memberOf({ web: { 80: 8_080 } }),
      networkGateway: atAddress('172.16.0.9', { network: 'remote', hbonePort: 15_008 }),
    }),
    workload('gateway', { network: 'remote', ips: ['172.16.0.9'] }),
  ],
  services: [service('web', { vips: [vip('10.1.0.1')], subjectAltNames: [id('web'), 'not a SPIFFE ID'] })],
};

/** `web` through the gateway of the network its endpoint is in. */
const throughGateway = {
  kind: 'double-hbone',
  to: '172.16.0.9:15008',
  authority: 'web.default.svc.cluster.local:80',
  upstream: 'gateway',
  service: 'web',
  expected: [id('gateway')],
  inner: [id('web')],
} as const;

/** HBONE to the address in `authority`, where `upstream` proves its own identity; `rest`: what else, or otherwise. */
function hbone(upstream: string, authority: string, rest: Partial<Summary> = {}): Summary {
  const to = `${authority.slice(0, authority.lastIndexOf(':'))}:15008`;
  return { kind: 'hbone', to, authority, upstream, expected: [id(upstream)], ...rest };
}

function refuse(code: string, text: string): Summary {
  return { kind: 'refuse', code, text };
}

const rows: readonly Row[] = [
  {
    name: 'an address nobody knows is passed through as dialled',
    state: {},
    target: '1.2.3.4:80',
    want: { kind: 'plaintext', to: '1.2.3.4:80' },
  },
  {
    name: 'a workload without HBONE is reached in plaintext, with its name in the labels',
    state: { workloads: [workload('plain', { ips: ['10.0.0.2'], protocol: 'TCP', node: 'node-2' })] },
    target: '10.0.0.2:80',
    want: { kind: 'plaintext', to: '10.0.0.2:80', upstream: 'plain' },
  },
  {
    name: 'a workload without HBONE on the same node is reached the same way',
    state: { workloads: [workload('plain', { ips: ['10.0.0.2'], protocol: 'TCP' })] },
    target: '10.0.0.2:80',
    want: { kind: 'plaintext', to: '10.0.0.2:80', upstream: 'plain' },
  },
  {
    name: 'an HBONE workload is reached on 15008 with its own address as authority',
    state: { workloads: [workload('server', { ips: ['10.0.0.2'], node: 'node-2' })] },
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'an HBONE workload on the same node is not short-cut',
    state: { workloads: [workload('server', { ips: ['10.0.0.2'] })] },
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'a waypoint of the source is ignored',
    state: { workloads: [workload('server', { ips: ['10.0.0.2'] }), workload('waypoint', { ips: ['10.0.0.9'] })] },
    source: workload('client', { ips: ['10.0.0.1'], waypoint: atAddress('10.0.0.9') }),
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'a workload with a waypoint is reached through it, the authority unchanged',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], waypoint: atAddress('10.0.0.9') }),
        workload('waypoint', { ips: ['10.0.0.9'] }),
      ],
    },
    target: '10.0.0.2:80',
    want: hbone('waypoint', '10.0.0.2:80', { to: '10.0.0.9:15008' }),
  },
  {
    name: 'an IPv6 target behind a waypoint given by IPv4 is dialled over IPv4 with the IPv6 authority',
    state: {
      workloads: [
        workload('server', { ips: ['ff06::c3'], waypoint: atAddress('10.0.0.9') }),
        workload('waypoint', { ips: ['fd00::9', '10.0.0.9'] }),
      ],
    },
    target: '[ff06::c3]:80',
    want: hbone('waypoint', '[ff06::c3]:80', { to: '10.0.0.9:15008' }),
  },
  {
    name: 'the waypoint of a workload does not send its own traffic to itself',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], waypoint: atAddress('10.1.0.9') }),
        workload('waypoint', { ips: ['10.0.0.9'], services: memberOf({ waypoint: { 15_008: 15_008 } }) }),
      ],
      services: [service('waypoint', { vips: [vip('10.1.0.9')], ports: new Map([[15_008, 15_008]]) })],
    },
    source: workload('waypoint', { ips: ['10.0.0.9'], services: memberOf({ waypoint: { 15_008: 15_008 } }) }),
    clientIp: '10.0.0.9',
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'a pod with the identity of the waypoint but not its address still goes through it',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], waypoint: atAddress('10.0.0.9') }),
        workload('waypoint', { ips: ['10.0.0.9'] }),
      ],
    },
    source: workload('other', { ips: ['10.0.0.7'], serviceAccount: 'waypoint' }),
    clientIp: '10.0.0.7',
    target: '10.0.0.2:80',
    want: hbone('waypoint', '10.0.0.2:80', { to: '10.0.0.9:15008' }),
  },
  {
    name: 'the waypoint of a service wins before any endpoint is chosen',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: { 80: 8_080 } }) }),
        workload('waypoint', { ips: ['10.0.0.9'] }),
      ],
      services: [service('web', { vips: [vip('10.1.0.1')], waypoint: atAddress('10.0.0.9') })],
    },
    target: '10.1.0.1:80',
    want: hbone('waypoint', '10.1.0.1:80', { to: '10.0.0.9:15008', service: 'web' }),
  },
  {
    name: 'a waypoint given by service name is dialled on its target port and may prove the names of its service',
    state: {
      workloads: [workload('waypoint', { ips: ['10.0.0.9'], services: memberOf({ waypoint: {} }) })],
      services: [
        service('web', { vips: [vip('10.1.0.1')], waypoint: atHostname('waypoint.default.svc.cluster.local') }),
        service('waypoint', {
          ports: new Map([[15_008, 15_018]]),
          subjectAltNames: [id('vouched'), 'not-a-spiffe-id'],
        }),
      ],
    },
    target: '10.1.0.1:80',
    want: hbone('waypoint', '10.1.0.1:80', {
      to: '10.0.0.9:15018',
      service: 'web',
      expected: [id('waypoint'), id('vouched')],
    }),
  },
  {
    name: 'a waypoint name that is no service may be the host name of a workload',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], waypoint: atHostname('waypoint.example.com') }),
        workload('waypoint', { ips: ['10.0.0.9'], hostname: 'waypoint.example.com' }),
      ],
    },
    target: '10.0.0.2:80',
    want: hbone('waypoint', '10.0.0.2:80', { to: '10.0.0.9:15008' }),
  },
  {
    name: 'a waypoint service without ports serves through the application tunnel of its instance',
    state: {
      workloads: [
        workload('waypoint', {
          ips: ['10.0.0.9'],
          services: memberOf({ waypoint: {} }),
          applicationTunnel: { protocol: 'PROXY', port: 15_088 },
        }),
      ],
      services: [
        service('web', { vips: [vip('10.1.0.1')], waypoint: atAddress('10.1.0.9') }),
        service('waypoint', { vips: [vip('10.1.0.9')], ports: new Map() }),
      ],
    },
    target: '10.1.0.1:80',
    want: hbone('waypoint', '10.1.0.1:80', { to: '10.0.0.9:15008', service: 'web' }),
  },
  {
    name: 'a waypoint nobody knows refuses; traffic never goes around it',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('10.1.0.1')], waypoint: atAddress('10.0.0.9') })],
    },
    target: '10.1.0.1:80',
    want: refuse('CV-WAYPOINT-UNKNOWN', 'unknown waypoint: /10.0.0.9 has no instance that can serve'),
  },
  {
    name: 'a waypoint whose instances are all unhealthy refuses',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], waypoint: atHostname('waypoint.default.svc.cluster.local') }),
        workload('waypoint', { ips: ['10.0.0.9'], ...UNHEALTHY_LOCAL, services: memberOf({ waypoint: {} }) }),
      ],
      services: [service('waypoint', { ports: new Map([[15_008, 15_008]]) })],
    },
    target: '10.0.0.2:80',
    want: refuse(
      'CV-WAYPOINT-UNKNOWN',
      'unknown waypoint: default/waypoint.default.svc.cluster.local has no instance that can serve',
    ),
  },
  {
    name: 'a waypoint in another network is reached through its gateway, and vouched for by its own service',
    state: {
      workloads: [
        workload('waypoint', {
          network: 'remote',
          services: memberOf({ way: { 15_008: 15_008 } }),
          networkGateway: atAddress('172.16.0.9', { network: 'remote' }),
        }),
        workload('gateway', { network: 'remote', ips: ['172.16.0.9'] }),
      ],
      services: [
        service('web', {
          vips: [vip('10.1.0.1')],
          subjectAltNames: [id('web')],
          waypoint: atHostname('way.default.svc.cluster.local'),
        }),
        service('way', { ports: new Map([[15_008, 15_008]]), subjectAltNames: [id('way')] }),
      ],
    },
    target: '10.1.0.1:80',
    want: { ...throughGateway, inner: [id('way')] },
  },
  {
    name: 'a waypoint in another network for which no service vouches is refused, not bypassed',
    state: {
      workloads: [
        workload('waypoint', {
          network: 'remote',
          ips: ['172.16.0.1'],
          networkGateway: atAddress('172.16.0.9', { network: 'remote' }),
        }),
        workload('gateway', { network: 'remote', ips: ['172.16.0.9'] }),
      ],
      services: [
        service('web', {
          vips: [vip('10.1.0.1')],
          subjectAltNames: [id('web')],
          waypoint: atAddress('172.16.0.1', { network: 'remote' }),
        }),
      ],
    },
    target: '10.1.0.1:80',
    want: refuse('CV-SERVICE-IDENTITY', 'no identity to expect in network remote: web.default.svc.cluster.local'),
  },
  {
    name: 'a workload behind a waypoint in another network is refused: only services lead there',
    state: {
      workloads: [
        workload('server', { ips: ['10.0.0.2'], waypoint: atAddress('172.16.0.1', { network: 'remote' }) }),
        workload('waypoint', {
          network: 'remote',
          ips: ['172.16.0.1'],
          networkGateway: atAddress('172.16.0.9', { network: 'remote' }),
        }),
        workload('gateway', { network: 'remote', ips: ['172.16.0.9'] }),
      ],
    },
    target: '10.0.0.2:80',
    want: refuse('CV-GATEWAY-UNKNOWN', 'no service for target address: 10.0.0.2:80'),
  },
  {
    name: 'a service without endpoints refuses and is not passed through',
    state: { services: [service('web', { vips: [vip('10.1.0.1')] })] },
    target: '10.1.0.1:80',
    want: refuse('CV-NO-ENDPOINT', 'no healthy upstream: 10.1.0.1:80'),
  },
  {
    name: 'a port the service does not list refuses',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: { 80: 8_080 } }) })],
      services: [service('web', { vips: [vip('10.1.0.1')] })],
    },
    target: '10.1.0.1:81',
    want: refuse('CV-NO-ENDPOINT', 'no healthy upstream: 10.1.0.1:81'),
  },
  {
    name: 'an endpoint of a service is reached on its target port; the service may vouch for more identities',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: { 80: 9_090 } }) })],
      services: [service('web', { vips: [vip('10.1.0.1')], subjectAltNames: [id('vouched')] })],
    },
    target: '10.1.0.1:80',
    want: hbone('server', '10.0.0.2:9090', { service: 'web', expected: [id('server'), id('vouched')] }),
  },
  {
    name: 'the waypoint of an endpoint does not apply to traffic addressed to its service',
    state: {
      workloads: [
        workload('server', {
          ips: ['10.0.0.2'],
          services: memberOf({ web: {} }),
          waypoint: atAddress('10.0.0.9'),
        }),
      ],
      services: [service('web', { vips: [vip('10.1.0.1')] })],
    },
    target: '10.1.0.1:80',
    want: hbone('server', '10.0.0.2:8080', { service: 'web' }),
  },
  {
    name: 'with a named port an endpoint that lacks the mapping is skipped',
    state: {
      workloads: [
        workload('without', { ips: ['10.0.0.2'], services: memberOf({ web: {} }) }),
        workload('with', { ips: ['10.0.0.3'], services: memberOf({ web: { 80: 9_090 } }) }),
      ],
      services: [service('web', { vips: [vip('10.1.0.1')], ports: new Map([[80, 0]]) })],
    },
    target: '10.1.0.1:80',
    want: hbone('with', '10.0.0.3:9090', { service: 'web' }),
  },
  {
    name: 'a host-network pod chosen as endpoint is reached in plaintext with its own name',
    state: {
      workloads: [
        workload('other-on-node', { ips: ['10.9.0.1'], networkMode: 'HostNetwork', protocol: 'TCP' }),
        workload('host-pod', {
          ips: ['10.9.0.1'],
          networkMode: 'HostNetwork',
          protocol: 'TCP',
          services: memberOf({ web: {} }),
        }),
      ],
      services: [service('web', { vips: [vip('10.1.0.1')] })],
    },
    target: '10.1.0.1:80',
    want: { kind: 'plaintext', to: '10.9.0.1:8080', upstream: 'host-pod', service: 'web' },
  },
  {
    name: 'a node address called directly is passed through without naming any of its pods',
    state: { workloads: [workload('host-pod', { ips: ['10.9.0.1'], networkMode: 'HostNetwork', protocol: 'TCP' })] },
    target: '10.9.0.1:443',
    want: { kind: 'plaintext', to: '10.9.0.1:443' },
  },
  {
    name: 'a passthrough service goes to the address dialled',
    state: { services: [service('ext', { vips: [vip('9.9.9.9')], loadBalancer: PASSTHROUGH })] },
    target: '9.9.9.9:443',
    want: { kind: 'plaintext', to: '9.9.9.9:443', service: 'ext' },
  },
  {
    name: 'a passthrough service with a waypoint goes to the waypoint',
    state: {
      workloads: [workload('waypoint', { ips: ['10.0.0.9'] })],
      services: [
        service('ext', { vips: [vip('9.9.9.9')], loadBalancer: PASSTHROUGH, waypoint: atAddress('10.0.0.9') }),
      ],
    },
    target: '9.9.9.9:443',
    want: hbone('waypoint', '9.9.9.9:443', { to: '10.0.0.9:15008', service: 'ext' }),
  },
  {
    name: 'a meshed pod inside the CIDR of a passthrough service is still reached over HBONE',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2'] })],
      services: [service('ext', { cidrVips: [{ network: '', cidr: '10.0.0.0/8' }], loadBalancer: PASSTHROUGH })],
    },
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'a meshed pod at the very address of a passthrough service is still reached over HBONE',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2'] })],
      services: [service('ext', { vips: [vip('10.0.0.2')], loadBalancer: PASSTHROUGH })],
    },
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'a dual-stack workload is reached by the address that was dialled',
    state: { workloads: [workload('server', { ips: ['10.0.0.2', 'fd00::2'] })] },
    target: '[fd00::2]:80',
    want: hbone('server', '[fd00::2]:80'),
  },
  {
    name: 'an IPv6-only service never picks the IPv4 address of an endpoint',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2', 'fd00::2'], services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('10.1.0.1')], ipFamilies: 'IPv6' })],
    },
    target: '10.1.0.1:80',
    want: hbone('server', '[fd00::2]:8080', { service: 'web' }),
  },
  {
    name: 'an IPv4-only service never picks the IPv6 address of an endpoint',
    state: {
      workloads: [workload('server', { ips: ['fd00::2', '10.0.0.2'], services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('fd00:1::1')], ipFamilies: 'IPv4' })],
    },
    target: '[fd00:1::1]:80',
    want: hbone('server', '10.0.0.2:8080', { service: 'web' }),
  },
  {
    name: 'a dual-stack service prefers the family of the request',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2', 'fd00::2'], services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('fd00:1::1')], ipFamilies: 'Dual' })],
    },
    target: '[fd00:1::1]:80',
    want: hbone('server', '[fd00::2]:8080', { service: 'web' }),
  },
  {
    name: 'an endpoint with no address of an allowed family refuses',
    state: {
      workloads: [workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('10.1.0.1')], ipFamilies: 'IPv6' })],
    },
    target: '10.1.0.1:80',
    want: refuse('CV-NO-ADDRESS', 'no valid routing destination for workload: server'),
  },
  {
    name: 'an endpoint that has only a host name needs its addresses first',
    state: {
      workloads: [workload('external', { hostname: 'example.com', services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('10.1.0.1')] })],
    },
    target: '10.1.0.1:80',
    want: { kind: 'resolve', upstream: 'external' },
  },
  {
    name: 'an endpoint in another network without gateway does not exist for us',
    state: {
      workloads: [workload('remote', { network: 'remote', services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('10.1.0.1')] })],
    },
    target: '10.1.0.1:80',
    want: refuse('CV-NO-ENDPOINT', 'no healthy upstream: 10.1.0.1:80'),
  },
  {
    name: 'an endpoint with an address in another network and no gateway refuses',
    state: {
      workloads: [workload('remote', { network: 'remote', ips: ['10.0.0.2'], services: memberOf({ web: {} }) })],
      services: [service('web', { vips: [vip('10.1.0.1')] })],
    },
    target: '10.1.0.1:80',
    want: refuse('CV-GATEWAY-UNKNOWN', 'no gateway address: remote'),
  },
  {
    name: 'a gateway nobody knows refuses and is named',
    state: { ...remoteCluster, workloads: remoteCluster.workloads.slice(0, 1) },
    target: '10.1.0.1:80',
    want: refuse('CV-GATEWAY-UNKNOWN', 'unknown network gateway: remote/172.16.0.9'),
  },
  {
    name: 'an endpoint in another network is reached through its gateway by the name of the service',
    state: remoteCluster,
    target: '10.1.0.1:80',
    want: throughGateway,
  },
  {
    name: 'a gateway given by address is dialled at that address and port',
    state: {
      ...remoteCluster,
      workloads: [
        workload('remote', {
          network: 'remote',
          services: memberOf({ web: { 80: 8_080 } }),
          networkGateway: atAddress('172.16.0.9', { network: 'remote', hbonePort: 15_009 }),
        }),
        workload('gateway', { network: 'remote', ips: ['172.16.0.8', '172.16.0.9'] }),
      ],
    },
    target: '10.1.0.1:80',
    want: { ...throughGateway, to: '172.16.0.9:15009' },
  },
  {
    name: 'a gateway given by host name is reached through its service, on the target port',
    state: {
      workloads: [
        workload('remote', {
          network: 'remote',
          services: memberOf({ web: { 80: 8_080 } }),
          networkGateway: atHostname('east.default.svc.cluster.local', { hbonePort: 15_009 }),
        }),
        workload('gateway', {
          network: 'remote',
          ips: ['127.0.0.5'],
          services: memberOf({ east: { 15_009: 15_008 } }),
        }),
      ],
      services: [
        ...remoteCluster.services,
        service('east', { ports: new Map([[15_009, 15_008]]), subjectAltNames: [id('east')] }),
      ],
    },
    target: '10.1.0.1:80',
    want: { ...throughGateway, to: '127.0.0.5:15008', expected: [id('gateway'), id('east')] },
  },
  {
    name: 'a gateway given by host name without a healthy instance refuses',
    state: {
      workloads: [
        workload('remote', {
          network: 'remote',
          services: memberOf({ web: { 80: 8_080 } }),
          networkGateway: atHostname('east.default.svc.cluster.local'),
        }),
      ],
      services: [...remoteCluster.services, service('east', { ports: new Map([[15_008, 15_008]]) })],
    },
    target: '10.1.0.1:80',
    want: refuse('CV-GATEWAY-UNKNOWN', 'unknown network gateway: default/east.default.svc.cluster.local'),
  },
  {
    name: 'a service in another network that names no identity refuses before anything is dialled',
    state: { ...remoteCluster, services: [service('web', { vips: [vip('10.1.0.1')], subjectAltNames: ['nobody'] })] },
    target: '10.1.0.1:80',
    want: refuse('CV-SERVICE-IDENTITY', 'no identity to expect in network remote: web.default.svc.cluster.local'),
  },
  {
    name: 'the gateway of the own network is not used: seen from there the pod is reached as any other',
    state: {
      workloads: [
        workload('gateway', { network: 'remote', ips: ['172.16.0.9'] }),
        workload('server', {
          ips: ['10.0.0.2'],
          network: 'remote',
          networkGateway: atAddress('172.16.0.9', { network: 'remote' }),
        }),
      ],
    },
    source: { ...CLIENT, network: 'remote' },
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'with network failover a healthy local endpoint is used and the remote one is not',
    state: {
      workloads: [
        ...remoteCluster.workloads,
        workload('local', { ips: ['10.0.0.2'], services: memberOf({ web: {} }) }),
      ],
      services: [service('web', { vips: [vip('10.1.0.1')], loadBalancer: FAILOVER_NETWORK })],
    },
    target: '10.1.0.1:80',
    want: hbone('local', '10.0.0.2:8080', { service: 'web' }),
  },
  {
    name: 'with network failover and the local endpoint unhealthy the remote network is chosen',
    state: {
      workloads: [
        ...remoteCluster.workloads,
        workload('local', { ips: ['10.0.0.2'], ...UNHEALTHY_LOCAL, services: memberOf({ web: {} }) }),
      ],
      services: [
        service('web', { vips: [vip('10.1.0.1')], subjectAltNames: [id('web')], loadBalancer: FAILOVER_NETWORK }),
      ],
    },
    target: '10.1.0.1:80',
    want: throughGateway,
  },
  {
    name: 'an unhealthy pod called by its own address is still reached',
    state: { workloads: [workload('server', { ips: ['10.0.0.2'], ...UNHEALTHY_LOCAL })] },
    target: '10.0.0.2:80',
    want: hbone('server', '10.0.0.2:80'),
  },
  {
    name: 'a service of another namespace with namespace visibility is not seen',
    state: {
      workloads: [
        workload('server', {
          ips: ['10.0.0.2'],
          services: new Map([['other/web.other.svc.cluster.local', new Map()]]),
        }),
      ],
      services: [service('web', { namespace: 'other', vips: [vip('10.1.0.1')], visibility: 'Namespace' })],
    },
    target: '10.1.0.1:80',
    want: { kind: 'plaintext', to: '10.1.0.1:80' },
  },
];

for (const { name, state, target, source = CLIENT, clientIp = '10.0.0.1', want } of rows) {
  test(name, () => {
    const hop = nextHop(mesh(state), { source, clientIp, target: hostPort(target) }, always(0.5));
    assert.deepEqual(summary(hop), want);
  });
}

test('weighted waypoints share connections in proportion to their weights', () => {
  const index = mesh({
    workloads: [workload('stable', { ips: ['10.0.0.8'] }), workload('canary', { ips: ['10.0.0.9'] })],
    services: [
      service('web', {
        vips: [vip('10.1.0.1')],
        waypoint: atAddress('10.0.0.8'),
        weightedWaypoints: [
          { destination: atAddress('10.0.0.8'), weight: 9 },
          { destination: atAddress('10.0.0.9'), weight: 1 },
        ],
      }),
    ],
  });
  const random = seeded(7);
  const request = { source: CLIENT, clientIp: '10.0.0.1', target: { ip: '10.1.0.1', port: 80 } };
  const counts = new Map<string | undefined, number>();
  for (let i = 0; i < 2_000; i++) {
    const { upstream } = summary(nextHop(index, request, random));
    counts.set(upstream, (counts.get(upstream) ?? 0) + 1);
  }
  assert.equal(counts.size, 2);
  assert(Math.abs((counts.get('canary') ?? 0) - 200) < 60, `canary got ${counts.get('canary')} of 2000`);
});

test('weighted waypoints that are all zero fall back to the single waypoint', () => {
  const index = mesh({
    workloads: [workload('stable', { ips: ['10.0.0.8'] }), workload('canary', { ips: ['10.0.0.9'] })],
    services: [
      service('web', {
        vips: [vip('10.1.0.1')],
        waypoint: atAddress('10.0.0.8'),
        weightedWaypoints: [{ destination: atAddress('10.0.0.9'), weight: 0 }],
      }),
    ],
  });
  const request = { source: CLIENT, clientIp: '10.0.0.1', target: { ip: '10.1.0.1', port: 80 } };
  assert.equal(summary(nextHop(index, request, always(0))).upstream, 'stable');
});

test('the service key of the samples is the one endpoints use', () => {
  assert.deepEqual([...memberOf({ web: {} }).keys()], [WEB]);
});

function hostPort(text: string): HostPort {
  const parsed = parseHostPort(text);
  assert(parsed !== undefined, text);
  return parsed;
}

function summary(hop: NextHop): Summary {
  if (hop.kind === 'refuse') return { kind: 'refuse', code: hop.refusal.code, text: hop.refusal.text };
  if (hop.kind === 'resolve') return { kind: 'resolve', upstream: hop.upstream.name };
  const { address } = hop;
  return {
    kind: hop.kind,
    to: address.ip.includes(':') ? `[${address.ip}]:${address.port}` : `${address.ip}:${address.port}`,
    ...(hop.kind !== 'plaintext' && { authority: hop.authority, expected: hop.expectedIdentities }),
    ...(hop.kind === 'double-hbone' && { inner: hop.innerExpectedIdentities }),
    ...(hop.upstream && { upstream: hop.upstream.name }),
    ...(hop.service && { service: hop.service.name }),
  };
}
