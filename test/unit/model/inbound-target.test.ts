import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatHostPort, parseHostPort } from '../../../src/base/ip.ts';
import { inboundTarget } from '../../../src/model/inbound-target.ts';
import type { Workload } from '../../../src/model/workload.ts';
import { atAddress, atHostname, memberOf, mesh, SETTINGS, service, vip, workload } from './sample-mesh.ts';

const POD = workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: {}, named: { 80: 9_090 } }) });
const VIP = '10.1.0.1';
const OTHER = workload('other', { ips: ['10.0.0.3'] });

/** The waypoint pods of a row differ in how they take traffic; all of them are instances of `waypoint.default…`. */
function waypoint(tunnel?: Workload['applicationTunnel']): Workload {
  return workload('waypoint', {
    ips: ['10.0.0.9'],
    services: memberOf({ waypoint: { 15_008: 15_008 } }),
    ...(tunnel && { applicationTunnel: tunnel }),
  });
}

const WAYPOINT_SERVICE = service('waypoint', { vips: [vip('10.1.0.9')], ports: new Map([[15_008, 15_008]]) });
const BY_NAME = atHostname('waypoint.default.svc.cluster.local');
const PROXY = { protocol: 'PROXY', port: 15_088 } as const;

interface Row {
  readonly name: string;
  readonly local: Workload;
  readonly dst: string;
  readonly authority: string;
  /** `address`, then ` policy=` and ` proxy=` where they differ or exist, then ` service=`; or `CODE text`. */
  readonly want: string;
  readonly isLocalhostAppTunnelEnabled?: boolean;
}

/** Other pods and services of the mesh every row lives in. */
const MESH = {
  workloads: [
    POD,
    OTHER,
    workload('behind-waypoint', { ips: ['10.0.0.4'], waypoint: BY_NAME }),
    workload('behind-waypoint-ip', { ips: ['10.0.0.5'], waypoint: atAddress('10.0.0.9') }),
    workload('behind-waypoint-vip', { ips: ['10.0.0.6'], waypoint: atAddress('10.1.0.9') }),
    workload('behind-other', { ips: ['10.0.0.7'], waypoint: atAddress('10.0.0.3') }),
    waypoint(),
  ],
  services: [
    WAYPOINT_SERVICE,
    service('web', { vips: [vip(VIP), vip('fd00:1::1')] }),
    service('named', { vips: [vip('10.1.0.2')], ports: new Map([[80, 0]]) }),
    service('nameless', { ports: new Map([[80, 8_080]]) }),
    service('unmapped', { vips: [vip('10.1.0.3')], ports: new Map([[80, 0]]) }),
    service('behind', { vips: [vip('10.1.0.4')], waypoint: BY_NAME }),
    service('behind-ip', { vips: [vip('10.1.0.5')], waypoint: atAddress('10.0.0.9') }),
    service('behind-canary', {
      vips: [vip('10.1.0.6')],
      weightedWaypoints: [{ destination: BY_NAME, weight: 1 }],
    }),
    service('remote-first', { vips: [vip('10.7.0.1', 'remote'), vip('fd00:1::7'), vip('10.1.0.7')] }),
    service('hidden', { namespace: 'secret', vips: [vip('10.1.0.8')], visibility: 'Namespace' }),
  ],
};

const host = (name: string): string => `${name}.default.svc.cluster.local`;

const rows: readonly Row[] = [
  {
    name: 'the pod is reached by its own address and the port of the authority',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '10.0.0.2:8080',
    want: '10.0.0.2:8080',
  },
  {
    name: 'a service host name is mapped to the target port of the service',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: `${host('web')}:80`,
    want: '10.0.0.2:8080 service=web',
  },
  {
    name: 'a named port is resolved by the endpoint',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: `${host('named')}:80`,
    want: '10.0.0.2:9090 service=named',
  },
  {
    name: 'a named port this endpoint does not have refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: `${host('unmapped')}:80`,
    want: `CV-SERVICE-UNKNOWN requested service ${host('unmapped')}:80 found, but cannot resolve port`,
  },
  {
    name: 'a port the service does not have refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: `${host('web')}:81`,
    want: `CV-SERVICE-UNKNOWN requested service ${host('web')}:81 found, but cannot resolve port`,
  },
  {
    name: 'a host name nobody knows refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: 'nobody.example.com:80',
    want: 'CV-SERVICE-UNKNOWN no service or workload for hostname: nobody.example.com',
  },
  {
    name: 'a service hidden from the namespace of the pod refuses like an unknown one',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: 'hidden.secret.svc.cluster.local:80',
    want: 'CV-SERVICE-UNKNOWN no service or workload for hostname: hidden.secret.svc.cluster.local',
  },
  {
    name: 'a tunnel to a port that cannot be refuses, and the annotation to correct is named',
    local: waypoint({ protocol: 'PROXY', port: 99_999 }),
    dst: '10.0.0.9:15008',
    authority: '10.1.0.4:80',
    want: 'CV-SERVICE-UNKNOWN the application tunnel of waypoint has port 99999, which cannot be; correct ambient.istio.io/waypoint-inbound-binding of its Gateway',
  },
  {
    name: 'the address of another pod refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '10.0.0.3:8080',
    want: 'CV-IP-MISMATCH ip mismatch: 10.0.0.2 != 10.0.0.3',
  },
  {
    name: 'an address nobody knows refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '192.0.2.1:8080',
    want: 'CV-IP-MISMATCH ip mismatch: 10.0.0.2 != 192.0.2.1',
  },
  {
    name: 'the VIP of a service of the pod refuses: only waypoints take VIPs',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: `${VIP}:80`,
    want: `CV-IP-MISMATCH ip mismatch: 10.0.0.2 != ${VIP}`,
  },
  {
    name: 'a captured waypoint takes traffic for a workload attached to it by service name',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.4:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'a captured waypoint takes traffic for a workload attached to it by pod address',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.5:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'a captured waypoint takes traffic for a workload attached to it by VIP',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.6:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'a captured waypoint takes traffic for a service attached to it by service name',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.1.0.4:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'a captured waypoint takes traffic for a service attached to it by pod address',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.1.0.5:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'a captured canary waypoint takes traffic for a service that gives it a weight',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.1.0.6:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'a captured waypoint refuses a workload attached to another one',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.7:80',
    want: 'CV-IP-MISMATCH ip mismatch: 10.0.0.9 != 10.0.0.7',
  },
  {
    name: 'a captured waypoint of services refuses a workload that is not attached',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.2:80',
    want: 'CV-IP-MISMATCH ip mismatch: 10.0.0.9 != 10.0.0.2',
  },
  {
    name: 'a captured waypoint of workloads refuses a service that is not attached',
    local: waypoint(),
    dst: '10.0.0.9:15008',
    authority: `${VIP}:80`,
    want: `CV-IP-MISMATCH ip mismatch: 10.0.0.9 != ${VIP}`,
  },
  {
    name: 'an application tunnel without protocol takes any address, on the port asked for',
    local: waypoint({ protocol: 'NONE' }),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.2:80',
    want: '10.0.0.9:80',
  },
  {
    name: 'an application tunnel with a port is dialled there, while policies see the port asked for',
    local: waypoint({ protocol: 'NONE', port: 15_088 }),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.2:80',
    want: '10.0.0.9:15088 policy=10.0.0.9:80',
  },
  {
    name: 'a PROXY tunnel is dialled on loopback and told the original pod address',
    local: waypoint(PROXY),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.2:80',
    want: '127.0.0.1:15088 policy=10.0.0.9:80 proxy=10.0.0.2:80',
  },
  {
    name: 'a PROXY tunnel is dialled on the pod address when loopback is switched off',
    local: waypoint(PROXY),
    dst: '10.0.0.9:15008',
    authority: `${VIP}:80`,
    want: `10.0.0.9:15088 policy=10.0.0.9:80 proxy=${VIP}:80`,
    isLocalhostAppTunnelEnabled: false,
  },
  {
    name: 'a PROXY tunnel on an IPv6 pod is dialled on the IPv6 loopback',
    local: waypoint(PROXY),
    dst: '[fd00::9]:15008',
    authority: '[fd00:1::1]:80',
    want: '[::1]:15088 policy=[fd00::9]:80 proxy=[fd00:1::1]:80',
  },
  {
    name: 'a PROXY tunnel asked for a host name is told the IPv4 VIP of the own network and the service port',
    local: waypoint(PROXY),
    dst: '10.0.0.9:15008',
    authority: `${host('remote-first')}:80`,
    want: '127.0.0.1:15088 policy=10.0.0.9:8080 proxy=10.1.0.7:80 service=remote-first',
  },
  {
    name: 'a PROXY tunnel asked for a host name without VIP refuses',
    local: waypoint(PROXY),
    dst: '10.0.0.9:15008',
    authority: `${host('nameless')}:80`,
    want: `CV-SERVICE-UNKNOWN requested service ${host('nameless')} found, but has no IP addresses`,
  },
  {
    name: "one of the agent's own ports refuses",
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '10.0.0.2:15008',
    want: 'CV-SELF-CALL attempted recursive call to ourselves',
  },
  {
    name: "an application tunnel that points at one of the agent's own ports refuses",
    local: waypoint({ protocol: 'PROXY', port: 15_006 }),
    dst: '10.0.0.9:15008',
    authority: '10.0.0.2:80',
    want: 'CV-SELF-CALL attempted recursive call to ourselves',
  },
  {
    name: 'an authority without port refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '10.0.0.2',
    want: 'CV-AUTHORITY no valid service port in authority header: 10.0.0.2',
  },
  {
    name: 'an authority with a port out of range refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '10.0.0.2:70000',
    want: 'CV-AUTHORITY invalid CONNECT address 10.0.0.2:70000',
  },
  {
    name: 'an empty authority refuses',
    local: POD,
    dst: '10.0.0.2:15008',
    authority: '',
    want: 'CV-AUTHORITY no valid authority pseudo header: ',
  },
];

for (const { name, local, dst, authority, want, ...settings } of rows) {
  test(name, () => {
    const connectionDst = parseHostPort(dst);
    assert(connectionDst !== undefined);
    const target = inboundTarget(mesh(MESH), { local, connectionDst, authority }, { ...SETTINGS, ...settings });
    assert.equal(summary(target), want);
  });
}

function summary(target: ReturnType<typeof inboundTarget>): string {
  if (target.kind === 'refuse') return `${target.refusal.code} ${target.refusal.text}`;
  const address = formatHostPort(target.address);
  const policy = formatHostPort(target.policyDestination);
  return [
    address,
    policy === address ? '' : ` policy=${policy}`,
    target.tunnelTarget === undefined ? '' : ` proxy=${formatHostPort(target.tunnelTarget)}`,
    target.service === undefined ? '' : ` service=${target.service.name}`,
  ].join('');
}
