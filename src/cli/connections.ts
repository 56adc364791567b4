/** `culvert connections`: who talks to whom now, and who was refused (columns of `istioctl ztunnel-config connections`, then ours). */
import { type Command, Option } from 'commander';
import type { ConnectionsView } from '../agent/admin/views.ts';
import type { ConnectionView } from '../telemetry/connection-view.ts';
import { getJson } from './admin-client.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';
import { readMeshDump } from './mesh-dump.ts';
import {
  localPeer,
  type Names,
  NO_NAMES,
  named,
  namesOf,
  namesOfViews,
  type OpenConnection,
  openOfDump,
  openOfView,
  openTable,
  workloadName,
} from './open-connections.ts';
import type { Terminal } from './terminal.ts';
import {
  type DumpViewOptions,
  dumpCommand,
  namespaceOption,
  printTable,
  type Table,
  withAlias,
} from './view-command.ts';

interface Options extends DumpViewOptions {
  readonly direction?: 'inbound' | 'outbound';
  readonly raw?: true;
  readonly refused?: true;
}

const EXAMPLES = `  $ culvert connections
  $ culvert connections --direction inbound --namespace shop
  $ culvert connections --refused          (the latest refused or cut connections, with their reason)
  $ culvert connections --file config_dump.json
  $ culvert explain <ID>

SENT went from the client to the server, RECEIVED from the server to the client.`;

export function connectionsCommand(terminal: Terminal): Command {
  const command = dumpCommand('connections', 'list open connections, or the latest refused ones', EXAMPLES)
    .aliases(['connection', 'cons'])
    .addOption(namespaceOption())
    .addOption(new Option('--direction <direction>', 'only this direction').choices(['inbound', 'outbound']))
    .option('--refused', 'refused and cut connections instead of open ones')
    .option('--raw', 'addresses as they are, not the names of workloads and services');
  withAlias(command, 'workload-namespace', 'namespace');
  return command.action(async (options: Options) => {
    if (options.refused) await printRefused(terminal, options);
    else if (options.file === undefined) await printLive(terminal, options);
    else await printDumped(terminal, options);
  });
}

async function printLive(terminal: Terminal, options: Options): Promise<void> {
  const { open } = (await getJson(options.admin, '/connections')) as ConnectionsView;
  const wanted = open.filter((view) => isWanted(openOfView(view), options));
  const names = options.raw ? NO_NAMES : namesOfViews(open);
  printTable(terminal, options.output, wanted, () => openTable(wanted.map(openOfView), names));
}

async function printDumped(terminal: Terminal, options: Options): Promise<void> {
  const dump = await readMeshDump(options);
  const wanted = openOfDump(dump).filter((connection) => isWanted(connection, options));
  const names = options.raw ? NO_NAMES : namesOf(dump);
  printTable(terminal, options.output, wanted, () => openTable(wanted, names));
}

async function printRefused(terminal: Terminal, options: Options): Promise<void> {
  if (options.file !== undefined) {
    throw new CliError(EXIT_USAGE, 'a config_dump does not hold refused connections: ask an agent, without --file');
  }
  const { open, refused } = (await getJson(options.admin, '/connections')) as ConnectionsView;
  const wanted = refused.filter((view) => isWanted(openOfView(view), options));
  const names = options.raw ? NO_NAMES : namesOfViews([...open, ...refused]);
  printTable(terminal, options.output, wanted, () => refusedTable(wanted, names));
}

function isWanted(connection: OpenConnection, { direction, namespace }: Options): boolean {
  if (direction !== undefined && connection.direction !== direction) return false;
  return namespace === undefined || connection.namespace === namespace;
}

function refusedTable(views: readonly ConnectionView[], names: Names): Table {
  return {
    header: ['WORKLOAD', 'DIRECTION', 'SOURCE', 'DESTINATION', 'REASON', 'OPENED', 'ID', 'ERROR'],
    rows: views.map((view) => {
      const { workload = '', namespace = '' } = localPeer(view);
      return [
        workloadName({ workload, namespace, podUid: view.podUid }),
        view.direction,
        named(view.src, names),
        named(view.originalDst ?? view.hboneAuthority ?? view.dst, names),
        { text: view.reason ?? '', colour: 'red' },
        view.openedAt,
        view.id,
        view.error ?? '',
      ];
    }),
    whenEmpty: 'Nothing was refused lately.',
  };
}
