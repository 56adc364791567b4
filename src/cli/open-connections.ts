/** Open connections, as our agent tells them or as any config_dump holds them, in the columns of istioctl and then ours. */
import type { ConnectionView, PeerView } from '../telemetry/connection-view.ts';
import { listOf, type MeshDump, objectOf, textOf, textsOf } from './mesh-dump.ts';
import { bytesText, durationText } from './quantities.ts';
import type { Cell } from './table.ts';
import type { Table } from './view-command.ts';

/** Addresses are `ip:port`. */
export interface OpenConnection {
  /** Empty when it is not known yet; then `podUid` is all there is. */
  readonly workload: string;
  readonly namespace: string;
  readonly podUid: string;
  readonly direction: 'inbound' | 'outbound';
  readonly src: string;
  readonly originalDst: string;
  readonly actualDst: string;
  readonly protocol: string;
  /** Absent in a dump. */
  readonly progress?: Pick<ConnectionView, 'durationMs' | 'clientBytes' | 'serverBytes' | 'id'>;
}

/** Address → what to call it. */
export type Names = ReadonlyMap<string, string>;

export const NO_NAMES: Names = new Map();

const HEADER = ['WORKLOAD', 'DIRECTION', 'LOCAL', 'REMOTE', 'REMOTE TARGET', 'PROTOCOL'];
const OWN_HEADER = ['AGE', 'SENT', 'RECEIVED', 'ID'];

export function openTable(connections: readonly OpenConnection[], names: Names): Table {
  const hasProgress = connections.some(({ progress }) => progress !== undefined);
  return {
    header: hasProgress ? [...HEADER, ...OWN_HEADER] : HEADER,
    shortColumns: HEADER.length,
    rows: connections.toSorted(byWorkload).map((connection) => row(connection, names)),
    whenEmpty: 'No open connections.',
  };
}

export function openOfView(view: ConnectionView): OpenConnection {
  const { workload = '', namespace = '' } = localPeer(view);
  const { podUid, direction, src, protocol } = view;
  const actualDst = actualDestination(view);
  const originalDst = view.originalDst ?? '';
  return { workload, namespace, podUid, direction, src, originalDst, actualDst, protocol, progress: view };
}

function actualDestination({ direction, hboneAuthority, dst }: ConnectionView): string {
  return direction === 'inbound' ? (hboneAuthority ?? dst) : dst;
}

/** `workloadState` of ztunnel's dump, and of ours. */
export function openOfDump({ workloadState }: MeshDump): readonly OpenConnection[] {
  return Object.entries(workloadState).flatMap(([podUid, state]) => {
    const { info, connections } = objectOf(state);
    const { name, namespace } = objectOf(info);
    const pod = { podUid, workload: textOf(name), namespace: textOf(namespace) };
    return (['inbound', 'outbound'] as const).flatMap((direction) =>
      listOf(objectOf(connections)[direction]).map((connection) => ({
        ...pod,
        direction,
        src: textOf(connection['src']),
        originalDst: textOf(connection['originalDst']),
        actualDst: textOf(connection['actualDst']),
        protocol: textOf(connection['protocol']),
      })),
    );
  });
}

/** The first address of each workload and service. Services win: they are what people dial. */
export function namesOf({ workloads, services }: MeshDump): Names {
  const names = new Map<string, string>();
  for (const workload of workloads) {
    const [ip] = textsOf(workload['workloadIps']);
    if (ip !== undefined) names.set(ip, `${textOf(workload['name'])}.${textOf(workload['namespace'])}`);
  }
  for (const service of services) {
    const [vip] = textsOf(service['vips']);
    if (vip !== undefined) names.set(vip.slice(vip.indexOf('/') + 1), textOf(service['hostname']));
  }
  return names;
}

/** As the connections themselves tell: for some rows nobody should have the dump of a whole cluster made. */
export function namesOfViews(views: readonly ConnectionView[]): Names {
  const names = new Map<string, string>();
  const note = (hostPort: string, name: string | undefined): void => {
    const { host } = split(hostPort);
    if (name !== undefined && host !== undefined) names.set(host, name);
  };
  for (const view of views) {
    note(view.src, nameOf(view.source));
    note(actualDestination(view), nameOf(view.destination));
  }
  for (const { direction, originalDst = '', service } of views)
    if (direction === 'outbound') note(originalDst, service);
  return names;
}

function nameOf({ workload, namespace = '' }: PeerView): string | undefined {
  return workload === undefined ? undefined : `${workload}.${namespace}`;
}

export function named(hostPort: string, names: Names): string {
  const { host, port } = split(hostPort);
  const name = host === undefined ? undefined : names.get(host);
  return name === undefined ? hostPort : `${name}:${port}`;
}

function split(hostPort: string): { readonly host?: string; readonly port?: string } {
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(hostPort) ?? [];
  return host === undefined || port === undefined ? {} : { host, port };
}

/** The end of a connection that belongs to this node. */
export function localPeer({ direction, source, destination }: ConnectionView): PeerView {
  return direction === 'outbound' ? source : destination;
}

/** A connection refused at once has no names yet; the pod is all that is known. */
export function workloadName({
  workload,
  namespace,
  podUid,
}: Pick<OpenConnection, 'workload' | 'namespace' | 'podUid'>): string {
  return workload === '' ? podUid : `${workload}.${namespace}`;
}

/** What was dialled is a name already on the inbound side, and mapped to one on the outbound side. */
function row(connection: OpenConnection, names: Names): readonly Cell[] {
  const { direction, src, actualDst, originalDst, protocol, progress } = connection;
  const ends =
    direction === 'inbound'
      ? [named(actualDst, names), named(src, names), originalDst]
      : [named(src, names), named(actualDst, names), named(originalDst, names)];
  return [
    workloadName(connection),
    direction,
    ...ends,
    protocol,
    ...(progress === undefined ? [] : ownCells(progress)),
  ];
}

function ownCells({
  durationMs,
  clientBytes,
  serverBytes,
  id,
}: NonNullable<OpenConnection['progress']>): readonly Cell[] {
  return [durationText(durationMs), bytesText(clientBytes), bytesText(serverBytes), id];
}

function byWorkload(a: OpenConnection, b: OpenConnection): number {
  const key = ({ namespace, workload }: OpenConnection) => `${namespace}\n${workload}`;
  return key(a) < key(b) ? -1 : Number(key(a) > key(b));
}
