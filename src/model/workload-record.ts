/** A workload as the index keeps it, in about 400 bytes: what the replicas of one deployment have in common exists once. */
import type { Locality, Workload } from './workload.ts';

/** What is its own in each replica. */
type OwnField = 'uid' | 'name' | 'ips' | 'hostname' | 'node' | 'locality';

/** What all replicas of one deployment have in common, nearly always. */
export type WorkloadProfile = Omit<Workload, OwnField>;

const NO_LIST: readonly never[] = [];

/** Reads like any other workload; made by `RecordStore` only. Cannot be spread: its fields are getters. */
export class WorkloadRecord implements Workload {
  readonly uid: string;
  readonly name: string;
  readonly hostname: string;
  readonly node: string;
  readonly locality: Locality;
  readonly profile: WorkloadProfile;
  /** The first address apart, without a list: nearly always it is the only one. */
  readonly address: string | undefined;
  readonly otherAddresses: readonly string[];

  constructor(own: Pick<Workload, OwnField>, profile: WorkloadProfile) {
    this.uid = own.uid;
    this.name = own.name;
    this.hostname = own.hostname;
    this.node = own.node;
    this.locality = own.locality;
    this.profile = profile;
    const [first, ...others] = own.ips;
    this.address = first;
    this.otherAddresses = others.length === 0 ? NO_LIST : others;
  }

  get ips(): readonly string[] {
    if (this.address === undefined) return NO_LIST;
    return this.otherAddresses === NO_LIST ? [this.address] : [this.address, ...this.otherAddresses];
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
