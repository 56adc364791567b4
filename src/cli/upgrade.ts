/** `culvert upgrade --plan`: what would become of each open connection if a successor took this node over now. */
import type { Command } from 'commander';
import type { ConnectionsView } from '../agent/admin-views.ts';
import type { ConnectionView } from '../telemetry/connection-view.ts';
import { getJson } from './admin-client.ts';
import { durationText } from './durations.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';
import { localPeer, workloadName } from './open-connections.ts';
import type { Terminal } from './terminal.ts';
import { print, type Table, tableText, type ViewOptions, viewCommand } from './view-command.ts';

const EXAMPLES = `  $ culvert upgrade --plan
  $ culvert upgrade --plan -o json

moves: its sockets go to the new agent, after a pause of milliseconds. held: it goes on in the old agent until it ends
or --hold is over, as do connections through SOCKS and those whose reader is stuck. Upgrade by starting the new agent
with --take-over true beside the old one.`;

interface Options extends ViewOptions {
  readonly plan?: true;
}

export interface PlannedConnection {
  readonly fate: 'moves' | 'held';
  readonly workload: string;
  readonly direction: ConnectionView['direction'];
  readonly src: string;
  readonly dst: string;
  readonly ageMs: number;
  readonly id: string;
}

export function upgradeCommand(terminal: Terminal): Command {
  return viewCommand('upgrade', 'say what an upgrade of the agent does to open connections', EXAMPLES)
    .option('--plan', 'what would move and what would be held')
    .action(async (options: Options) => {
      if (options.plan !== true) {
        throw new CliError(EXIT_USAGE, 'only --plan is there: an upgrade is a new agent started with --take-over true');
      }
      const { open } = (await getJson(options.admin, '/connections')) as ConnectionsView;
      const plan = open.map(plannedOf);
      print(
        terminal,
        options.output,
        plan,
        (form) => `${tableText(terminal, planTable(plan), form)}${summary(plan)}\n`,
      );
    });
}

/** TLS and HTTP/2 state cannot leave the process, so what is in a tunnel stays. */
export function plannedOf(view: ConnectionView): PlannedConnection {
  const { workload = '', namespace = '' } = localPeer(view);
  return {
    fate: view.protocol === 'TCP' ? 'moves' : 'held',
    workload: workloadName({ workload, namespace, podUid: view.podUid }),
    direction: view.direction,
    src: view.src,
    dst: view.originalDst ?? view.hboneAuthority ?? view.dst,
    ageMs: view.durationMs,
    id: view.id,
  };
}

function planTable(plan: readonly PlannedConnection[]): Table {
  return {
    header: ['FATE', 'WORKLOAD', 'DIRECTION', 'SOURCE', 'DESTINATION', 'AGE', 'ID'],
    rows: plan
      .toSorted((a, b) => b.ageMs - a.ageMs)
      .map(({ fate, workload, direction, src, dst, ageMs, id }) => [
        { text: fate, colour: fate === 'moves' ? 'green' : 'yellow' },
        workload,
        direction,
        src,
        dst,
        durationText(ageMs),
        id,
      ]),
    whenEmpty: 'No open connections.',
  };
}

function summary(plan: readonly PlannedConnection[]): string {
  const moves = plan.filter(({ fate }) => fate === 'moves').length;
  return `${moves} would move, ${plan.length - moves} would be held, none would be cut.`;
}
