/** `/config_dump`, assembled from plain data of its owners. */
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import type { BuildInfo } from '../build-info.ts';
import type { PodView } from './views.ts';

/** Each section as its owner writes it; fields that hold `undefined` are absent in the answer. */
export interface ConfigDumpSections {
  readonly certificates: readonly { readonly identity: string }[];
  readonly config: object;
  readonly policies: Iterable<unknown>;
  readonly services: Iterable<unknown>;
  readonly stagedServices: unknown;
  readonly staticConfig: unknown;
  readonly version: BuildInfo;
  /** Shared mode only. */
  readonly workloadState?: object;
  readonly workloads: Iterable<unknown>;
}

export function configDump(sections: ConfigDumpSections): object {
  const certificates = sections.certificates.toSorted((a, b) => compare(a.identity, b.identity));
  return { ...sections, certificates };
}

/** Pod uid → what runs there. `connections` is absent while the pod is pending, as in ztunnel. */
export function workloadState(pods: readonly PodView[], open: readonly ConnectionView[]): object {
  const ofPod = Map.groupBy(open, ({ podUid }) => podUid);
  const entries = pods.map(({ uid, state, name, namespace, serviceAccount }) => {
    const info = { name, namespace, serviceAccount };
    return [uid, state === 'Up' ? { state, connections: connectionsOf(ofPod.get(uid) ?? []), info } : { state, info }];
  });
  return Object.fromEntries(entries);
}

/** Object keys in alphabetical order at every depth; arrays keep their order. */
export function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(
    entries.toSorted(([a], [b]) => compare(a, b)).map(([key, field]) => [key, sortKeys(field)]),
  );
}

function connectionsOf(views: readonly ConnectionView[]): object {
  return {
    inbound: views.filter(({ direction }) => direction === 'inbound').map(inboundConnection),
    outbound: views.filter(({ direction }) => direction === 'outbound').map(outboundConnection),
  };
}

/** Readers of the dump know no short cut, which is plain TCP for them. */
function dumpedProtocol(protocol: ConnectionView['protocol']): string {
  return protocol === 'SAMENODE' ? 'TCP' : protocol;
}

/** `originalDst` is the forwarded host or, literally, null: tools distinguish that from a missing key. */
function inboundConnection({ src, originalDst, hboneAuthority, dst, protocol }: ConnectionView): object {
  return {
    src,
    originalDst: originalDst ?? null,
    actualDst: hboneAuthority ?? dst,
    protocol: dumpedProtocol(protocol),
  };
}

function outboundConnection({ src, originalDst, dst, protocol }: ConnectionView): object {
  return { src, originalDst: originalDst ?? dst, actualDst: dst, protocol: dumpedProtocol(protocol) };
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
