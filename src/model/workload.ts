/** The mesh as immutable records, field for field what `istio.workload` carries, with defaults already applied. */

/** Where a waypoint or network gateway is: an address in a network, or a service or workload by name. */
export type GatewayAddress =
  | { readonly kind: 'address'; readonly network: string; readonly ip: string; readonly hbonePort: number }
  | { readonly kind: 'hostname'; readonly namespace: string; readonly hostname: string; readonly hbonePort: number };

export interface WeightedWaypoint {
  readonly destination: GatewayAddress;
  readonly weight: number;
}

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

/** Of a workload that does not say where it is. */
export const NO_LOCALITY: Locality = { region: '', zone: '', subzone: '' };

/** A waypoint-like workload that wants traffic handed to its own port, with or without a PROXY v2 header. */
export interface ApplicationTunnel {
  readonly protocol: 'NONE' | 'PROXY';
  /** As told: may be over 65535. */
  readonly port?: number;
}

export interface Workload {
  /** `cluster/group/kind/namespace/name`, unique in the mesh. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly network: string;
  /** Canonical text, in the order given. */
  readonly ips: readonly string[];
  readonly hostname: string;
  readonly node: string;
  readonly clusterId: string;
  readonly protocol: 'TCP' | 'HBONE';
  readonly networkMode: 'Standard' | 'HostNetwork';
  readonly nativeTunnel: boolean;
  readonly workloadName: string;
  readonly workloadType: 'deployment' | 'cronjob' | 'pod' | 'job';
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly locality: Locality;
  readonly status: 'Healthy' | 'Unhealthy';
  /** Weight among the endpoints of a service, default 1; 0 takes no traffic. */
  readonly capacity: number;
  readonly waypoint?: GatewayAddress | undefined;
  readonly networkGateway?: GatewayAddress | undefined;
  readonly applicationTunnel?: ApplicationTunnel | undefined;
  /** `namespace/name` of policies attached by selector. */
  readonly authorizationPolicies: readonly string[];
  /** `namespace/hostname` → service port → target port of this endpoint. */
  readonly services: ReadonlyMap<string, ReadonlyMap<number, number>>;
}

export type Scope = 'Region' | 'Zone' | 'Subzone' | 'Node' | 'Cluster' | 'Network';

export interface LoadBalancer {
  readonly mode: 'Standard' | 'Strict' | 'Failover' | 'Passthrough';
  readonly routingPreferences: readonly Scope[];
  readonly healthPolicy: 'OnlyHealthy' | 'AllowAll';
}

/** Of a service that asks for nothing. */
export const STANDARD_BALANCER: LoadBalancer = {
  mode: 'Standard',
  routingPreferences: [],
  healthPolicy: 'OnlyHealthy',
};

export interface NetworkAddress {
  readonly network: string;
  readonly ip: string;
}

export interface NetworkCidr {
  readonly network: string;
  /** `address/length` as text, host bits zero. */
  readonly cidr: string;
}

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly vips: readonly NetworkAddress[];
  readonly cidrVips: readonly NetworkCidr[];
  /** Service port → target port; 0 = a named port that each endpoint resolves. */
  readonly ports: ReadonlyMap<number, number>;
  /** SPIFFE URIs accepted for endpoints of this service besides their own identity. */
  readonly subjectAltNames: readonly string[];
  readonly waypoint?: GatewayAddress;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancer: LoadBalancer;
  readonly ipFamilies?: 'IPv4' | 'IPv6' | 'Dual';
  readonly canonical: boolean;
  readonly visibility: 'Public' | 'Namespace';
}

/** One workload as member of one service. */
export interface Endpoint {
  readonly workloadUid: string;
  /** Service port → target port of this endpoint. */
  readonly ports: ReadonlyMap<number, number>;
  readonly status: 'Healthy' | 'Unhealthy';
}

/** `namespace/hostname`. */
export function serviceKey(service: { readonly namespace: string; readonly hostname: string }): string {
  return `${service.namespace}/${service.hostname}`;
}
