/** `culvert connections`: who talks to whom now, and who was refused (columns of facts/operations.md §7.1, then ours). */
import { type Command, Option } from 'commander';
import type { ConnectionsView } from '../agent/admin-views.ts';
import type { ConnectionView, PeerView } from '../telemetry/connection-view.ts';
import { getJson } from './admin-client.ts';
import { bytesText, durationText } from './durations.ts';
import { type MeshDump, readMeshDump, textOf, textsOf } from './mesh-dump.ts';
import type { Cell } from './table.ts';
import type { Terminal } from './terminal.ts';
import { namespaceOption, print, tableText, type ViewOptions, viewCommand } from './view-command.ts';

interface Options extends ViewOptions {
  readonly direction?: 'inbound' | 'outbound';
  readonly raw?: true;
  readonly refused?: true;
}

const OPEN_HEADER = [
  'WORKLOAD',
  'DIRECTION',
  'LOCAL',
  'REMOTE',
  'REMOTE TARGET',
  'PROTOCOL',
  'AGE',
  'SENT',
  'RECEIVED',
  'ID',
];
const REFUSED_HEADER = ['WORKLOAD', 'DIRECTION', 'SOURCE', 'DESTINATION', 'REASON', 'ERROR', 'OPENED', 'ID'];

const EXAMPLES = `  $ culvert connections
  $ culvert connections --direction inbound --namespace shop
  $ culvert connections --refused          (the latest refused or cut connections, with their reason)
  $ culvert explain <ID>

SENT went from the client to the server, RECEIVED from the server to the client.`;

export function connectionsCommand(terminal: Terminal): Command {
  return viewCommand('connections', 'list open connections, or the latest refused ones', EXAMPLES)
    .aliases(['connection', 'cons'])
    .addOption(namespaceOption())
    .addOption(new Option('--direction <direction>', 'only this direction').choices(['inbound', 'outbound']))
    .option('--refused', 'refused and cut connections instead of open ones')
    .option('--raw', 'addresses as they are, not the names of workloads and services')
    .action(async (options: Options) => {
      const all = (await getJson(options.admin, '/connections')) as ConnectionsView;
      const wanted = (options.refused ? all.refused : all.open).filter((view) => isWanted(view, options));
      const names = options.raw || options.output !== 'table' ? NO_NAMES : namesOf(await readMeshDump(options.admin));
      print(terminal, options.output, wanted, () =>
        options.refused
          ? tableText(
              terminal,
              REFUSED_HEADER,
              wanted.map((view) => refusedRow(view, names)),
              'Nothing was refused lately.',
            )
          : tableText(
              terminal,
              OPEN_HEADER,
              wanted.toSorted(byWorkload).map((view) => openRow(view, names)),
              'No open connections.',
            ),
      );
    });
}

type Names = ReadonlyMap<string, string>;
const NO_NAMES: Names = new Map();

function isWanted(view: ConnectionView, { direction, namespace }: Options): boolean {
  if (direction !== undefined && view.direction !== direction) return false;
  return namespace === undefined || localPeer(view).namespace === namespace;
}

/** The first address of each workload and service → what to call it. Services win: they are what people dial. */
function namesOf({ workloads, services }: MeshDump): Names {
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

function openRow(view: ConnectionView, names: Names): readonly Cell[] {
  const actual = view.hboneAuthority ?? view.dst;
  const ends =
    view.direction === 'inbound'
      ? [named(actual, names), named(view.src, names), view.originalDst ?? '']
      : [named(view.src, names), named(view.dst, names), named(view.originalDst ?? '', names)];
  return [
    workloadName(view),
    view.direction,
    ...ends,
    view.protocol,
    durationText(view.durationMs),
    bytesText(view.clientBytes),
    bytesText(view.serverBytes),
    view.id,
  ];
}

function refusedRow(view: ConnectionView, names: Names): readonly Cell[] {
  return [
    workloadName(view),
    view.direction,
    named(view.src, names),
    named(view.originalDst ?? view.hboneAuthority ?? view.dst, names),
    { text: view.reason ?? '', colour: 'red' },
    view.error ?? '',
    view.openedAt,
    view.id,
  ];
}

function localPeer({ direction, source, destination }: ConnectionView): PeerView {
  return direction === 'outbound' ? source : destination;
}

/** A connection refused at once has no names yet; the pod is all that is known. */
function workloadName(view: ConnectionView): string {
  const { workload, namespace } = localPeer(view);
  return workload === undefined ? view.podUid : `${workload}.${namespace ?? ''}`;
}

function named(hostPort: string, names: Names): string {
  const split = /^\[?(.*?)\]?:(\d+)$/.exec(hostPort);
  const name = split?.[1] === undefined ? undefined : names.get(split[1]);
  return name === undefined ? hostPort : `${name}:${split?.[2]}`;
}

function byWorkload(a: ConnectionView, b: ConnectionView): number {
  const key = (view: ConnectionView) => `${localPeer(view).namespace ?? ''}\n${localPeer(view).workload ?? ''}`;
  return key(a) < key(b) ? -1 : Number(key(a) > key(b));
}
