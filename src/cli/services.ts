/** `culvert services`: what clients dial, and how many endpoints can answer (columns of facts/operations.md §7.1). */
import type { Command } from 'commander';
import { inNamespace, type JsonObject, listOf, readMeshDump, textOf, textsOf, waypointNames } from './mesh-dump.ts';
import type { Cell } from './table.ts';
import type { Terminal } from './terminal.ts';
import { namespaceOption, print, tableText, type ViewOptions, viewCommand } from './view-command.ts';

const HEADER = ['NAMESPACE', 'SERVICE NAME', 'SERVICE VIP', 'WAYPOINT', 'ENDPOINTS'];

const EXAMPLES = `  $ culvert services
  $ culvert services --namespace shop
  $ culvert services --output json

ENDPOINTS is healthy/total.`;

export function servicesCommand(terminal: Terminal): Command {
  return viewCommand('services', 'list the services this agent knows', EXAMPLES)
    .aliases(['service', 'svc', 's'])
    .addOption(namespaceOption())
    .action(async (options: ViewOptions) => {
      const dump = await readMeshDump(options.admin);
      const wanted = inNamespace(dump.services, options.namespace);
      const waypointOf = waypointNames(dump.services);
      const healthy = healthyUids(dump.workloads);
      const rows = () => wanted.map((service) => row(service, waypointOf(service), healthy));
      print(terminal, options.output, wanted, () => tableText(terminal, HEADER, rows(), 'No services found.'));
    });
}

function row(service: JsonObject, waypoint: string, healthy: ReadonlySet<unknown>): readonly Cell[] {
  const vips = textsOf(service['vips']).map((vip) => vip.slice(vip.indexOf('/') + 1));
  return [
    textOf(service['namespace']),
    textOf(service['name']),
    vips.join(','),
    waypoint,
    endpointsCell(service, healthy),
  ];
}

/** Healthy means what istioctl means: the workload is known and its own status is `Healthy`. */
function healthyUids(workloads: readonly JsonObject[]): ReadonlySet<unknown> {
  return new Set(workloads.filter(({ status }) => status === 'Healthy').map(({ uid }) => uid));
}

function endpointsCell(service: JsonObject, healthy: ReadonlySet<unknown>): Cell {
  const endpoints = listOf(service['endpoints']);
  const good = endpoints.filter(({ workloadUid }) => healthy.has(workloadUid)).length;
  const text = `${good}/${endpoints.length}`;
  return good === endpoints.length ? text : { text, colour: good === 0 ? 'red' : 'yellow' };
}
