/** Equality of the parts that records share. A part that is taken for another would give a workload what it does not have. */
import type { ApplicationTunnel, GatewayAddress, LoadBalancer, Locality } from './workload.ts';
import type { WorkloadProfile } from './workload-record.ts';

type Same<T> = (a: T, b: T) => boolean;

/** Every field, optional ones too: a new field does not compile until somebody says how it compares. */
type Comparisons<T> = { readonly [K in keyof T]-?: Same<T[K]> };

function sameIn<T extends object>(comparisons: Comparisons<T>): Same<T> {
  const keys = Object.keys(comparisons) as (keyof T)[];
  return (a, b) => keys.every((key) => comparisons[key](a[key], b[key]));
}

function sameOrAbsent<T>(same: Same<T>): Same<T | undefined> {
  return (a, b) => (a === undefined || b === undefined ? a === b : same(a, b));
}

function sameList<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((value, at) => value === b[at]);
}

/** Order counts: the first of several services that fit is the one a connection is attributed to. */
function sameMap<K, V>(same: Same<V>): Same<ReadonlyMap<K, V>> {
  return (a, b) => {
    if (a.size !== b.size) return false;
    const others = b.entries();
    for (const [key, value] of a) {
      const other = others.next().value;
      if (other === undefined || other[0] !== key || !same(value, other[1])) return false;
    }
    return true;
  };
}

export const samePorts = sameMap<number, number>(Object.is);

export const sameLocality = sameIn<Locality>({ zone: Object.is, region: Object.is, subzone: Object.is });

export const sameBalancer = sameIn<LoadBalancer>({
  mode: Object.is,
  healthPolicy: Object.is,
  routingPreferences: sameList,
});

const sameTunnel = sameIn<ApplicationTunnel>({ protocol: Object.is, port: Object.is });

function sameGateway(a: GatewayAddress, b: GatewayAddress): boolean {
  if (a.hbonePort !== b.hbonePort) return false;
  if (a.kind === 'address') return b.kind === 'address' && a.ip === b.ip && a.network === b.network;
  return b.kind === 'hostname' && a.hostname === b.hostname && a.namespace === b.namespace;
}

/** What differs most often comes first. */
export const sameProfile = sameIn<WorkloadProfile>({
  serviceAccount: Object.is,
  status: Object.is,
  services: sameMap(samePorts),
  authorizationPolicies: sameList,
  namespace: Object.is,
  trustDomain: Object.is,
  network: Object.is,
  clusterId: Object.is,
  protocol: Object.is,
  networkMode: Object.is,
  nativeTunnel: Object.is,
  workloadName: Object.is,
  workloadType: Object.is,
  canonicalName: Object.is,
  canonicalRevision: Object.is,
  capacity: Object.is,
  waypoint: sameOrAbsent(sameGateway),
  networkGateway: sameOrAbsent(sameGateway),
  applicationTunnel: sameOrAbsent(sameTunnel),
});
