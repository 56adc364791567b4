/** `culvert upgrade --plan`: what would become of each open connection if a successor took this node over now. */
import type { Command } from 'commander';
import type { ConnectionsView, StatusView } from '../agent/admin/views.ts';
import type { ConnectionView, Obstacle } from '../telemetry/connection-view.ts';
import { getJson } from './admin-client.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';
import { localPeer, workloadName } from './open-connections.ts';
import { durationText } from './quantities.ts';
import type { Terminal } from './terminal.ts';
import { print, type Table, tableText, type ViewOptions, viewCommand } from './view-command.ts';

const EXAMPLES = `  $ culvert upgrade --plan
  $ culvert upgrade --plan -o short
  $ culvert upgrade --plan -o json | jq 'map(select(.fate != "moves"))'

moves: its sockets go to the new agent, after a pause of milliseconds. held: it goes on in the old agent until it ends, or
until --hold or CULVERT_HOLD_MEMORY of that agent is over. cut: with --hold 0s, what could only be held.
Upgrade by starting the new agent with --take-over true beside the old one.`;

const FATES = ['moves', 'held', 'cut'] as const;
type Fate = (typeof FATES)[number];

const COLOURS = { moves: 'green', held: 'yellow', cut: 'red' } as const satisfies Record<Fate, string>;

const WHY: Readonly<Record<Obstacle, string>> = {
  tunnel: 'in a tunnel, whose TLS and HTTP/2 state cannot leave the process, with a peer that does not resume',
  'half-closed': 'in a tunnel in which its half has ended, and the peer is of an older version, or has ended too',
  'read-ahead': 'bytes may have been read ahead',
  unread: 'its reader does not take what was sent',
  dialling: 'its upstream is still being dialled',
};

/** Of a connection to another network (`agent/hand-over/README.md`). */
const WHY_FAR = 'through the gateway of another network, which would lead its next tunnel to any server of the service';

interface Options extends ViewOptions {
  readonly plan?: true;
}

interface PlannedConnection {
  readonly fate: Fate;
  /** Why it cannot move. */
  readonly why?: string;
  readonly workload: string;
  readonly direction: ConnectionView['direction'];
  readonly src: string;
  readonly dst: string;
  readonly ageMs: number;
  readonly idleMs: number;
  readonly id: string;
}

export function upgradeCommand(terminal: Terminal): Command {
  return viewCommand('upgrade', 'say what an upgrade of the agent does to open connections', EXAMPLES)
    .option('--plan', 'what would move, what would be held, and what would be cut')
    .action(async (options: Options) => {
      if (options.plan !== true) {
        throw new CliError(EXIT_USAGE, 'only --plan is there: an upgrade is a new agent started with --take-over true');
      }
      const [{ open }, { handOver }] = (await Promise.all([
        getJson(options.admin, '/connections'),
        getJson(options.admin, '/status'),
      ])) as [ConnectionsView, StatusView];
      const plan = open.map((view) => plannedOf(view, handOver.holdMs)).toSorted(byFate);
      print(terminal, options.output, plan, (form) => {
        const tables = form === 'short' ? [sumTable(plan)] : FATES.flatMap((fate) => fateTable(plan, fate));
        const texts = tables.map((table) => tableText(terminal, table, form));
        return [...texts, `${summary(plan, handOver.holdMs)}\n`].join('\n');
      });
    });
}

function plannedOf(view: ConnectionView, holdMs: number): PlannedConnection {
  const { workload = '', namespace = '' } = localPeer(view);
  const { obstacle, direction, src, durationMs: ageMs, idleMs = ageMs, id } = view;
  return {
    ...(obstacle === undefined ? { fate: 'moves' } : { fate: holdMs > 0 ? 'held' : 'cut', why: whyOf(view, obstacle) }),
    workload: workloadName({ workload, namespace, podUid: view.podUid }),
    direction,
    src,
    dst: view.originalDst ?? view.hboneAuthority ?? view.dst,
    ageMs,
    idleMs,
    id,
  };
}

function whyOf({ protocol }: ConnectionView, obstacle: Obstacle): string {
  return obstacle === 'tunnel' && protocol === 'DOUBLEHBONE' ? WHY_FAR : WHY[obstacle];
}

/** By fate, then by workload, the oldest first. */
function byFate(a: PlannedConnection, b: PlannedConnection): number {
  const order = FATES.indexOf(a.fate) - FATES.indexOf(b.fate);
  if (order !== 0) return order;
  return a.workload === b.workload ? b.ageMs - a.ageMs : a.workload < b.workload ? -1 : 1;
}

/** None when nothing has that fate. */
function fateTable(plan: readonly PlannedConnection[], wanted: Fate): readonly Table[] {
  const rows = plan
    .filter(({ fate }) => fate === wanted)
    .map(({ fate, workload, direction, src, dst, ageMs, idleMs, id, why }) => [
      { text: fate, colour: COLOURS[fate] },
      workload,
      direction,
      src,
      dst,
      durationText(ageMs),
      durationText(idleMs),
      id,
      ...(why === undefined ? [] : [why]),
    ]);
  const header = ['FATE', 'WORKLOAD', 'DIRECTION', 'SOURCE', 'DESTINATION', 'AGE', 'IDLE', 'ID'];
  if (rows.length === 0) return [];
  return [{ header: wanted === 'moves' ? header : [...header, 'WHY'], rows, whenEmpty: '' }];
}

/** One row for each workload, fate and reason. */
function sumTable(plan: readonly PlannedConnection[]): Table {
  const groups = Map.groupBy(plan, ({ fate, workload, why }) => JSON.stringify([fate, workload, why]));
  const rows = [...groups.values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    const { fate, workload, why = '' } = first;
    const oldest = durationText(Math.max(...group.map(({ ageMs }) => ageMs)));
    const leastIdle = durationText(Math.min(...group.map(({ idleMs }) => idleMs)));
    return [[{ text: fate, colour: COLOURS[fate] }, workload, String(group.length), oldest, leastIdle, why]];
  });
  const header = ['FATE', 'WORKLOAD', 'CONNECTIONS', 'OLDEST', 'LEAST IDLE', 'WHY'];
  return { header, rows, whenEmpty: 'No open connections.' };
}

function summary(plan: readonly PlannedConnection[], holdMs: number): string {
  const [moves, held, cut] = FATES.map((wanted) => plan.filter(({ fate }) => fate === wanted).length);
  const limit = holdMs > 0 ? ` (for up to ${durationText(holdMs)})` : '';
  return `${moves} would move, ${held} would be held${limit}, ${cut} would be cut.`;
}
