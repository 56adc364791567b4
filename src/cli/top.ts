/** `culvert top`: what each workload uses of the agent, now. */
import { setTimeout as pause } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { UsageView } from '../agent/admin/views.ts';
import { parseDurationMs } from '../agent/settings/reader.ts';
import { getJson } from './admin-client.ts';
import { bytesText } from './quantities.ts';
import type { Terminal } from './terminal.ts';
import { SORT_KEYS, type SortKey, type TopRow, topRows } from './top-rows.ts';
import { namespaceOption, printTable, type Table, tableText, type ViewOptions, viewCommand } from './view-command.ts';

const EXAMPLES = `  $ culvert top
  $ culvert top --sort new --interval 5s
  $ culvert top --once --output json | jq '.[0].workload'
  $ culvert top --interval 10s >> usage.txt      (one table per interval)
  $ culvert top --output json | jq -c 'map(select(.cpu > 0.5))'      (one line per interval)

Keys: c CPU, n new connections, o open ones, h handshakes, i bytes in, u bytes out, m memory, w turns waited for, q ends.
CPU is of one core. IN goes to the applications of the workload, OUT comes from them. WAITS counts turns it had to wait for, because
it had used up its own while others wanted theirs; who takes much and keeps others waiting gets the greedy lane, threads of a lower
priority, until it is modest again; a budget (culvert.io/budget) bounds it for good.`;

const KEYS: Readonly<Record<string, SortKey>> = {
  c: 'cpu',
  n: 'new',
  o: 'connections',
  h: 'handshakes',
  i: 'in',
  u: 'out',
  m: 'memory',
  w: 'held',
};
/** q, Q, Ctrl-C, Ctrl-D. */
const END_KEYS: ReadonlySet<string> = new Set(['q', 'Q', '\u0003', '\u0004']);
const MIN_INTERVAL_MS = 200;
const MAX_INTERVAL_MS = 3_600_000;

/** The other screen of the terminal, without a cursor and with lines cut at its edge, and back. */
const ENTER_SCREEN = '\u001b[?1049h\u001b[?25l\u001b[?7l';
const LEAVE_SCREEN = '\u001b[?7h\u001b[?25h\u001b[?1049l';
/** To the top, each line cleared as it is written, and what is below the last. */
const TOP_LEFT = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

interface Options extends ViewOptions {
  readonly once?: true;
  readonly interval: number;
  readonly sort: SortKey;
}

export function topCommand(terminal: Terminal): Command {
  return viewCommand('top', 'show what each workload uses: connections, handshakes, bytes, CPU, memory', EXAMPLES)
    .addOption(namespaceOption())
    .option('--once', 'one look, an interval long, and no more')
    .addOption(new Option('--interval <duration>', 'between two looks').argParser(parseInterval).default(2_000, '2s'))
    .addOption(
      new Option('--sort <key>', 'what the busiest is the busiest in')
        .choices(Object.keys(SORT_KEYS))
        .default('cpu' satisfies SortKey),
    )
    .action((options: Options) => {
      const isLive = options.once !== true && options.output === 'table' && terminal.isTty;
      return isLive && terminal.readKeys !== undefined
        ? live(terminal, options, terminal.readKeys)
        : plain(terminal, options);
    });
}

function parseInterval(text: string): number {
  const ms = parseDurationMs(text);
  if (ms !== undefined && ms >= MIN_INTERVAL_MS && ms <= MAX_INTERVAL_MS) return ms;
  throw new InvalidArgumentError('It must be a duration from 200ms to 1h, for example 2s.');
}

/** One table, or one line of JSON, per interval, until somebody ends the process. */
async function plain(terminal: Terminal, options: Options): Promise<void> {
  let before = await look(options);
  for (let isFirst = true; ; isFirst = false) {
    await pause(options.interval);
    const now = await look(options);
    const rows = topRows(before, now, options.sort);
    if (options.output === 'json' && options.once !== true) terminal.out(`${JSON.stringify(rows)}\n`);
    else {
      if (!isFirst) terminal.out(options.output === 'yaml' ? '---\n' : '\n');
      printTable(terminal, options.output, rows, () => tableOf(rows));
    }
    if (options.once === true) return;
    before = now;
  }
}

/** A table that is drawn over itself, until q. */
async function live(terminal: Terminal, options: Options, readKeys: NonNullable<Terminal['readKeys']>): Promise<void> {
  let sort = options.sort;
  let wake = new AbortController();
  let isOver = false;
  using _keys = readKeys((key) => {
    isOver ||= END_KEYS.has(key);
    sort = KEYS[key] ?? sort;
    wake.abort();
  });
  terminal.out(ENTER_SCREEN);
  try {
    let before = await look(options);
    let rows: readonly TopRow[] = [];
    let now = before;
    while (!isOver) {
      if (now !== before) rows = topRows(before, now, sort);
      draw(terminal, rows, { sort, options, isFirst: now === before });
      wake = new AbortController();
      const isDue = await pause(options.interval, true, { signal: wake.signal }).catch(() => false);
      if (!isDue) continue;
      if (now !== before) before = now;
      now = await look(options);
    }
  } finally {
    terminal.out(LEAVE_SCREEN);
  }
}

interface Frame {
  readonly sort: SortKey;
  readonly options: Options;
  /** Nothing to compare with yet. */
  readonly isFirst: boolean;
}

function draw(terminal: Terminal, rows: readonly TopRow[], { sort, options, isFirst }: Frame): void {
  const what = rows.length === 1 ? 'workload' : 'workloads';
  const head = `culvert top: ${rows.length} ${what} by ${sort}, every ${options.interval / 1_000} s; q ends`;
  const body = isFirst ? 'Looking…\n' : tableText(terminal, tableOf(rows), 'table');
  const lines = [head, '', ...body.trimEnd().split('\n')].slice(0, Math.max(1, terminal.rows ?? 24));
  terminal.out(`${TOP_LEFT}${lines.map((line) => `${line}${CLEAR_LINE}`).join('\r\n')}${CLEAR_BELOW}`);
}

async function look({ admin, namespace }: Options): Promise<UsageView> {
  const view = (await getJson(admin, '/usage')) as UsageView;
  if (namespace === undefined) return view;
  return { ...view, workloads: view.workloads.filter((use) => use.namespace === namespace) };
}

function tableOf(rows: readonly TopRow[]): Table {
  return {
    // What matters first: a narrow terminal shows the left part.
    header: [
      'WORKLOAD',
      'CPU',
      'LANE',
      'CONNS',
      'NEW/S',
      'IN/S',
      'OUT/S',
      'BUFFERED',
      'WAITS/S',
      'TLS/S',
      'TLS PENDING',
    ],
    rows: rows.map((row) => [
      row.workload,
      row.cpu >= 0.5 ? { text: shareText(row.cpu), colour: 'red' } : shareText(row.cpu),
      row.lane === 'greedy' ? { text: row.lane, colour: 'yellow' } : row.lane,
      String(row.connections),
      rateText(row.newPerSecond),
      bytesText(Math.round(row.inBytesPerSecond)),
      bytesText(Math.round(row.outBytesPerSecond)),
      bytesText(row.bufferedBytes),
      row.heldPerSecond > 0 ? { text: rateText(row.heldPerSecond), colour: 'yellow' } : '0',
      rateText(row.handshakesPerSecond),
      String(row.pendingHandshakes),
    ]),
    whenEmpty: 'No workload is served here.',
  };
}

function rateText(perSecond: number): string {
  return perSecond < 10 && perSecond > 0 ? perSecond.toFixed(1) : String(Math.round(perSecond));
}

function shareText(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}
