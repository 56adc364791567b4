/** `culvert workloads`: everything in the mesh that can send or receive (columns of facts/operations.md §7.1). */
import { type Command, Option } from 'commander';
import { inNamespace, type JsonObject, readMeshDump, textOf, textsOf, waypointNames } from './mesh-dump.ts';
import type { Terminal } from './terminal.ts';
import { namespaceOption, print, tableText, type ViewOptions, viewCommand } from './view-command.ts';

interface Options extends ViewOptions {
  readonly node?: string;
  readonly address?: string;
}

const HEADER = ['NAMESPACE', 'POD NAME', 'ADDRESS', 'NODE', 'WAYPOINT', 'PROTOCOL'];

const EXAMPLES = `  $ culvert workloads
  $ culvert workloads --namespace shop --node node-1
  $ culvert workloads --address 10.42.2.9 --output yaml`;

export function workloadsCommand(terminal: Terminal): Command {
  return viewCommand('workloads', 'list the workloads this agent knows', EXAMPLES)
    .aliases(['workload', 'w'])
    .addOption(namespaceOption())
    .addOption(new Option('--node <name>', 'only this node'))
    .addOption(new Option('--address <ip>', 'only the workload with this address'))
    .action(async (options: Options) => {
      const dump = await readMeshDump(options.admin);
      const wanted = inNamespace(dump.workloads, options.namespace).filter((workload) => isWanted(workload, options));
      const waypointOf = waypointNames(dump.services);
      const rows = () => wanted.map((workload) => row(workload, waypointOf(workload)));
      print(terminal, options.output, wanted, () => tableText(terminal, HEADER, rows(), 'No workloads found.'));
    });
}

function isWanted(workload: JsonObject, { node, address }: Options): boolean {
  if (node !== undefined && workload['node'] !== node) return false;
  return address === undefined || textsOf(workload['workloadIps']).includes(address);
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
