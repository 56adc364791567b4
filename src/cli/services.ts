/** `culvert services`: what clients dial, and how many endpoints can answer (columns of `istioctl ztunnel-config service`). */
import type { Command } from 'commander';
import {
  inNamespace,
  type JsonObject,
  listOf,
  type MeshDump,
  readMeshDump,
  textOf,
  textsOf,
  waypointNames,
} from './mesh-dump.ts';
import type { Cell } from './table.ts';
import type { Terminal } from './terminal.ts';
import {
  type DumpViewOptions,
  dumpCommand,
  namespaceOption,
  printTable,
  type Table,
  withAlias,
} from './view-command.ts';

const EXAMPLES = `  $ culvert services
  $ culvert services --namespace shop
  $ culvert services --output json
  $ curl -s localhost:15000/config_dump | culvert services --file -

ENDPOINTS is healthy/total.`;

export function servicesCommand(terminal: Terminal): Command {
  const command = dumpCommand('services', 'list the services this agent knows', EXAMPLES)
    .aliases(['service', 'svc', 's'])
    .addOption(namespaceOption());
  withAlias(command, 'service-namespace', 'namespace');
  return command.action(async (options: DumpViewOptions) => {
    const dump = await readMeshDump(options, ['services', 'workloads']);
    const wanted = inNamespace(dump.services, options.namespace);
    printTable(terminal, options.output, wanted, () => serviceTable(dump, wanted));
  });
}

export function serviceTable(dump: MeshDump, services: readonly JsonObject[]): Table {
  const waypointOf = waypointNames(dump.services);
  const healthy = healthyUids(dump.workloads);
  return {
    header: ['NAMESPACE', 'SERVICE NAME', 'SERVICE VIP', 'WAYPOINT', 'ENDPOINTS'],
    rows: services.map((service) => row(service, waypointOf(service), healthy)),
    whenEmpty: 'No services found.',
  };
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
