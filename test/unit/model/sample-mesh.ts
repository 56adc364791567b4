/** Records with defaults, so that a test states only what it is about. */
import type { Random } from '../../../src/base/random.ts';
import type { DataPathSettings } from '../../../src/model/data-path-settings.ts';
import type { DnsSettings } from '../../../src/model/dns-answer.ts';
import { EMPTY_MESH, MeshIndex, type MeshState } from '../../../src/model/mesh-index.ts';
import type { MeshUpdate } from '../../../src/model/mesh-update.ts';
import type { Policy } from '../../../src/model/policy.ts';
import type { GatewayAddress, LoadBalancer, Service, Workload } from '../../../src/model/workload.ts';

export const STANDARD: LoadBalancer = { mode: 'Standard', routingPreferences: [], healthPolicy: 'OnlyHealthy' };

export const SETTINGS: DataPathSettings = {
  network: '',
  illegalPorts: new Set([15_001, 15_006, 15_008]),
  isResponseBaggageEnabled: true,
  isOrigSrcEnabled: true,
  isLocalhostAppTunnelEnabled: true,
};

export const DNS_SETTINGS: DnsSettings = { clusterDomain: 'cluster.local', isIpv6Enabled: true };

/** A pod `name` in namespace `default` with its own service account. */
export function workload(name: string, fields: Partial<Workload> = {}): Workload {
  return {
    uid: `Kubernetes//Pod/${fields.namespace ?? 'default'}/${name}`,
    name,
    namespace: 'default',
    trustDomain: 'cluster.local',
    serviceAccount: name,
    network: '',
    ips: [],
    hostname: '',
    node: 'node-1',
    clusterId: 'Kubernetes',
    protocol: 'HBONE',
    networkMode: 'Standard',
    nativeTunnel: false,
    workloadName: `${name}-deploy`,
    workloadType: 'deployment',
    canonicalName: `${name}-app`,
    canonicalRevision: 'v1',
    locality: { region: '', zone: '', subzone: '' },
    status: 'Healthy',
    capacity: 1,
    authorizationPolicies: [],
    services: new Map(),
    ...fields,
  };
}

/** Service `<name>.default.svc.cluster.local` with port 80 → 8080 unless told otherwise. */
export function service(name: string, fields: Partial<Service> = {}): Service {
  const namespace = fields.namespace ?? 'default';
  return {
    name,
    namespace,
    hostname: `${name}.${namespace}.svc.cluster.local`,
    vips: [],
    cidrVips: [],
    ports: new Map([[80, 8_080]]),
    subjectAltNames: [],
    weightedWaypoints: [],
    loadBalancer: STANDARD,
    canonical: false,
    visibility: 'Public',
    ...fields,
  };
}

/** `services` of a workload that is an endpoint of default-namespace services: name → service port → target port. */
export function memberOf(members: Readonly<Record<string, Readonly<Record<number, number>>>>): Workload['services'] {
  return new Map(
    Object.entries(members).map(([name, ports]) => [
      `default/${name}.default.svc.cluster.local`,
      new Map(Object.entries(ports).map(([port, target]) => [Number(port), target])),
    ]),
  );
}

export function policy(name: string, fields: Partial<Policy> = {}): Policy {
  return { name, namespace: 'default', scope: 'Namespace', action: 'Allow', dryRun: false, rules: [], ...fields };
}

export function atAddress(ip: string, fields: { network?: string; hbonePort?: number } = {}): GatewayAddress {
  return { kind: 'address', network: '', ip, hbonePort: 15_008, ...fields };
}

export function atHostname(hostname: string, fields: { namespace?: string; hbonePort?: number } = {}): GatewayAddress {
  return { kind: 'hostname', namespace: 'default', hostname, hbonePort: 15_008, ...fields };
}

export function vip(ip: string, network = ''): { network: string; ip: string } {
  return { network, ip };
}

export function range(cidr: string, network = ''): Service['cidrVips'][number] {
  return { network, cidr };
}

/** An update without effect. */
export const NOTHING: MeshUpdate = { ...EMPTY_MESH, removedWorkloads: [], removedServices: [], removedPolicies: [] };

export function mesh(state: Partial<MeshState>): MeshIndex {
  return new MeshIndex({ ...EMPTY_MESH, ...state });
}

/** Answers `value` every time. */
export function always(value: number): Random {
  return { next: () => value, hex: (bytes) => '0'.repeat(2 * bytes) };
}

/** Reproducible: mulberry32. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const hex = (bytes: number): string =>
    Array.from({ length: bytes }, () =>
      Math.floor(next() * 256)
        .toString(16)
        .padStart(2, '0'),
    ).join('');
  return { next, hex };
}

/** A resolver for meshes without host names: nobody is to ask it. */
export function noHosts(): Promise<never> {
  return Promise.reject(new Error('no host name is looked up in this test'));
}
