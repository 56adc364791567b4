/** A workload as the index keeps it, in about 400 bytes: what the replicas of one deployment have in common exists once. */
import type { Locality, Workload } from './workload.ts';

/** What is its own in each replica. */
type OwnField = 'uid' | 'name' | 'ips' | 'hostname' | 'node' | 'locality';

/** What all replicas of one deployment have in common, nearly always. */
export type WorkloadProfile = Omit<Workload, OwnField>;

/** Reads like any other workload; made by `RecordStore` only. Cannot be spread: its fields are getters. */
export class WorkloadRecord implements Workload {
  readonly uid: string;
  readonly name: string;
  readonly hostname: string;
  readonly node: string;
  readonly locality: Locality;
  readonly profile: WorkloadProfile;
  /** Without a list where there is one, as nearly always. */
  readonly addresses: string | readonly string[];

  constructor(own: Pick<Workload, OwnField>, profile: WorkloadProfile) {
    this.uid = own.uid;
    this.name = own.name;
    this.hostname = own.hostname;
    this.node = own.node;
    this.locality = own.locality;
    this.profile = profile;
    const [only] = own.ips;
    this.addresses = own.ips.length === 1 && only !== undefined ? only : own.ips;
  }

  get ips(): readonly string[] {
    return typeof this.addresses === 'string' ? [this.addresses] : this.addresses;
  }
  get namespace(): string {
    return this.profile.namespace;
  }
  get trustDomain(): string {
    return this.profile.trustDomain;
  }
  get serviceAccount(): string {
    return this.profile.serviceAccount;
  }
  get network(): string {
    return this.profile.network;
  }
  get clusterId(): string {
    return this.profile.clusterId;
  }
  get protocol(): Workload['protocol'] {
    return this.profile.protocol;
  }
  get networkMode(): Workload['networkMode'] {
    return this.profile.networkMode;
  }
  get nativeTunnel(): boolean {
    return this.profile.nativeTunnel;
  }
  get workloadName(): string {
    return this.profile.workloadName;
  }
  get workloadType(): Workload['workloadType'] {
    return this.profile.workloadType;
  }
  get canonicalName(): string {
    return this.profile.canonicalName;
  }
  get canonicalRevision(): string {
    return this.profile.canonicalRevision;
  }
  get status(): Workload['status'] {
    return this.profile.status;
  }
  get capacity(): number {
    return this.profile.capacity;
  }
  get waypoint(): Workload['waypoint'] {
    return this.profile.waypoint;
  }
  get networkGateway(): Workload['networkGateway'] {
    return this.profile.networkGateway;
  }
  get applicationTunnel(): Workload['applicationTunnel'] {
    return this.profile.applicationTunnel;
  }
  get authorizationPolicies(): readonly string[] {
    return this.profile.authorizationPolicies;
  }
  get services(): Workload['services'] {
    return this.profile.services;
  }
}
