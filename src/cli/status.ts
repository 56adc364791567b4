/** `culvert status`: one page about one agent. */
import type { Command } from 'commander';
import type { ControlPlaneView, HeldView, PodView, StatusView } from '../agent/admin/views.ts';
import { REASONS } from '../base/reasons.ts';
import { getJson } from './admin-client.ts';
import { revocationFact } from './identities.ts';
import { durationText } from './quantities.ts';
import { type Cell, renderFacts, renderTable } from './table.ts';
import { hasColour, type Terminal } from './terminal.ts';
import { namespaceOption, print, type ViewOptions, viewCommand } from './view-command.ts';

const EXAMPLES = `  $ culvert status
  $ culvert status --namespace shop
  $ culvert status --output short     (without the lists of pods, listeners, refusals and workers)
  $ culvert status --output json | jq .pending`;

export function statusCommand(terminal: Terminal): Command {
  return viewCommand(
    'status',
    'show what the agent does: readiness, pods, mesh source, certificates, refusals',
    EXAMPLES,
  )
    .addOption(namespaceOption())
    .action(async (options: ViewOptions) => {
      const all = (await getJson(options.admin, '/status')) as StatusView;
      const pods = all.pods.filter(({ namespace }) => namespace === (options.namespace ?? namespace));
      const view = { ...all, pods };
      print(terminal, options.output, view, (form) => {
        const facts = renderFacts(factsOf(view, terminal.nowMs()), hasColour(terminal));
        return form === 'short' ? facts : [facts, ...listsOf(view, hasColour(terminal))].join('\n');
      });
    });
}

/** One table per list; empty lists are left out. */
function listsOf(view: StatusView, isColoured: boolean): readonly string[] {
  const tables = [
    podTable(view),
    {
      header: ['LISTENER', 'ADDRESS'],
      rows: view.listeners.map(({ component, address }): readonly Cell[] => [component, address]),
    },
    refusedTable(view),
    {
      header: ['WORKER', 'STATE', 'CONNECTIONS'],
      rows: view.workers.map((worker): readonly Cell[] => [worker.name, worker.state, String(worker.connections)]),
    },
  ];
  const filled = tables.filter(({ rows }) => rows.length > 0);
  return filled.map(({ header, rows }) => renderTable(header, rows, isColoured));
}

function factsOf(view: StatusView, nowMs: number): readonly (readonly [string, Cell])[] {
  const { mesh, enrolment } = view;
  const { lastError, revocation } = view.certificates;
  return [
    ['Node', view.node],
    ['Version', view.version],
    ['Uptime', `${durationText(view.uptimeSeconds * 1_000)} (since ${view.startedAt})`],
    ['Ready', readyCell(view)],
    ['Enrolment', enrolment.source],
    ...errorFact('Enrolment error', enrolment.lastError),
    ['Pods', podsText(view)],
    ['Mesh source', meshSourceText(view)],
    ...errorFact('Mesh error', mesh.lastError),
    ['Mesh state', `${count(mesh.workloads, 'workload')}, ${count(mesh.services, 'service')}, ${policiesText(view)}`],
    ['Certificates', certificatesCell(view, nowMs)],
    ...errorFact('Certificate error', lastError),
    ...(revocation === undefined ? [] : [revocationFact(revocation)]),
    ['Connections', connectionsText(view)],
    ...view.handOver.held.map((held) => ['Held', heldText(held)] as const),
  ];
}

function meshSourceText({ mesh: { source, controlPlane, lastLoadAt } }: StatusView): string {
  const words = [
    source,
    controlPlane === undefined ? undefined : controlPlaneText(controlPlane),
    lastLoadAt === undefined ? undefined : `loaded ${lastLoadAt}`,
  ];
  return words.filter((word) => word !== undefined).join(', ');
}

function controlPlaneText({ isConnected, isComplete, isBehind }: ControlPlaneView): string {
  const state = isComplete ? (isBehind ? 'last good state, an update was refused' : 'complete') : 'not told yet';
  return `${isConnected ? 'connected' : 'not connected'}, ${state}`;
}

function readyCell({ isReady, pending }: StatusView): Cell {
  return isReady ? { text: 'yes', colour: 'green' } : { text: `no, pending: ${pending.join(', ')}`, colour: 'red' };
}

function errorFact(name: string, error: string | undefined): readonly (readonly [string, Cell])[] {
  return error === undefined ? [] : [[name, { text: error, colour: 'red' }]];
}

function podsText({ pods }: StatusView): string {
  const up = pods.filter(({ state }) => state === 'Up').length;
  return `${up} up, ${pods.length - up} pending`;
}

function policiesText({ mesh }: StatusView): string {
  const policies = count(mesh.policies, 'policy', 'policies');
  return mesh.rejectedPolicies === 0
    ? policies
    : `${policies} (${mesh.rejectedPolicies} rejected, see culvert policies)`;
}

function certificatesCell({ certificates }: StatusView, nowMs: number): Cell {
  const { source, total, unavailable, soonestExpiry } = certificates;
  const leftMs = soonestExpiry === undefined ? undefined : Date.parse(soonestExpiry) - nowMs;
  const expiry = leftMs === undefined ? '' : `, soonest expiry ${soonestExpiry} (${expiryText(leftMs)})`;
  const text = `${total} from ${source}${unavailable === 0 ? '' : `, ${unavailable} unavailable`}${expiry}`;
  return unavailable > 0 || (leftMs ?? 1) <= 0 ? { text, colour: 'red' } : text;
}

function expiryText(leftMs: number): string {
  return leftMs > 0 ? `in ${durationText(leftMs)}` : `${durationText(-leftMs)} ago`;
}

function connectionsText({ connections }: StatusView): string {
  const refused = Object.values(connections.refused).reduce((sum, number) => sum + number, 0);
  return `${connections.live} open, ${connections.opened} since the start, ${refused} refused or cut`;
}

/** By an agent before this one. */
function heldText({ connections, pid, version, since, until }: HeldView): string {
  return `${count(connections, 'connection')} by the former agent, process ${pid} (${version}), since ${since}, until ${until} at most`;
}

function podTable({ pods }: StatusView) {
  const rows = pods.map((pod): readonly Cell[] => [
    pod.namespace,
    pod.name,
    pod.serviceAccount,
    { text: pod.state, colour: pod.state === 'Up' ? 'green' : 'yellow' },
    String(pod.repairs),
    troubleCell(pod),
  ]);
  return { header: ['NAMESPACE', 'POD NAME', 'SERVICE ACCOUNT', 'STATE', 'REPAIRS', 'LAST ERROR'], rows };
}

function troubleCell({ lastError, notRedirected }: PodView): Cell {
  if (lastError !== undefined) return `${lastError.code}: ${lastError.message}`;
  if (notRedirected === undefined) return '';
  return { text: `CV-NOT-REDIRECTED: ${notRedirected.map(({ text }) => text).join(', ')}`, colour: 'red' };
}

/** Most frequent first. A newer agent may know codes that this program does not. */
function refusedTable({ connections }: StatusView) {
  const causes: Readonly<Record<string, { readonly cause: string }>> = REASONS;
  const rows = Object.entries(connections.refused)
    .toSorted(([, a], [, b]) => b - a)
    .map(([code, number]): readonly Cell[] => [
      { text: code, colour: 'red' },
      String(number),
      causes[code]?.cause ?? '',
    ]);
  return { header: ['REFUSED', 'COUNT', 'CAUSE (culvert explain <code>)'], rows };
}

function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
