/** `culvert workloads`: everything in the mesh that can send or receive (columns of `istioctl ztunnel-config workload`). */
import { type Command, Option } from 'commander';
import { canonicalIp } from '../base/ip.ts';
import {
  inNamespace,
  type JsonObject,
  type MeshDump,
  readMeshDump,
  textOf,
  textsOf,
  waypointNames,
} from './mesh-dump.ts';
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
  readonly node?: string;
  readonly address?: string;
}

const EXAMPLES = `  $ culvert workloads
  $ culvert workloads --namespace shop --node node-1
  $ culvert workloads --address 10.42.2.9 --output yaml
  $ culvert workloads --file config_dump.json`;

export function workloadsCommand(terminal: Terminal): Command {
  const command = dumpCommand('workloads', 'list the workloads this agent knows', EXAMPLES)
    .aliases(['workload', 'w'])
    .addOption(namespaceOption())
    .addOption(new Option('--node <name>', 'only this node'))
    .addOption(new Option('--address <ip>', 'only the workload with this address'));
  withAlias(command, 'workload-namespace', 'namespace');
  withAlias(command, 'workload-node', 'node');
  return command.action(async (options: Options) => {
    const dump = await readMeshDump(options, ['workloads', 'services']);
    const wanted = inNamespace(dump.workloads, options.namespace).filter((workload) => isWanted(workload, options));
    printTable(terminal, options.output, wanted, () => workloadTable(dump, wanted));
  });
}

export function workloadTable({ services }: MeshDump, workloads: readonly JsonObject[]): Table {
  const waypointOf = waypointNames(services);
  return {
    header: ['NAMESPACE', 'POD NAME', 'ADDRESS', 'NODE', 'WAYPOINT', 'PROTOCOL'],
    rows: workloads.map((workload) => row(workload, waypointOf(workload))),
    whenEmpty: 'No workloads found.',
  };
}

function isWanted(workload: JsonObject, { node, address }: Options): boolean {
  if (node !== undefined && workload['node'] !== node) return false;
  return address === undefined || textsOf(workload['workloadIps']).includes(canonicalIp(address) ?? address);
}

function row(workload: JsonObject, waypoint: string): readonly string[] {
  const addresses = textsOf(workload['workloadIps']).join(',');
  return [
    textOf(workload['namespace']),
    textOf(workload['name']),
    addresses === '' ? textOf(workload['hostname']) : addresses,
    textOf(workload['node']),
    waypoint,
    textOf(workload['protocol']),
  ];
}
