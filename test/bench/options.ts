/** Command line of the bench. */
import { parseArgs } from 'node:util';
import { COLUMNS, type ColumnName, VARIANTS } from './columns/column.ts';

const ALL = [...COLUMNS, ...VARIANTS];

export const HELP = `npm run bench -- [options]

Compares Culvert with an HAProxy and an nginx mTLS pair, and with no proxy at all, on two nodes made of network
namespaces on this machine. Needs root. All figures come from one run: the columns take turns scenario by scenario,
round after round, and the table shows medians. A second table has Culvert with one and with two workers, and two pods of
one node through HBONE and past it (the same-node short cut).

  --rounds N          rounds of every scenario (default 3)
  --quick             one round of short scenarios, first table only; under 90 s, for a first look
  --only a,b          columns to run: ${ALL.join(', ')}
  --scenarios a,b     groups to run: bulk, latency, requests, connections, memory
  --idle N            idle connections held while memory is read (default 5000, 2000 with --quick)
  --pin               each node owns one core: less noise, but no borrowing of the other node's idle time
  --output json       print every sample as JSON instead of the table
  --svg FILE          write a chart as well
  --node-flags=S      flags of Node for the agents, for example --node-flags='--cpu-prof --cpu-prof-dir=/tmp/profiles'
  --baseline=DIR      a second Culvert column, from another checkout: judges a change in one interleaved run
  --keep              leave the directory of configurations and logs, and print its name
  --help

Missing Debian packages (haproxy, nginx, libnginx-mod-stream, wrk, h2load, iperf3) are installed through apt.
`;

export const SCENARIOS = ['bulk', 'latency', 'requests', 'connections', 'memory'] as const;
export type ScenarioName = (typeof SCENARIOS)[number];

export interface Options {
  readonly rounds: number;
  readonly bulkSeconds: number;
  readonly requestSeconds: number;
  readonly columns: readonly ColumnName[];
  readonly scenarios: readonly ScenarioName[];
  readonly idleConnections: number;
  /** Quiet time before memory is read. */
  readonly settleSeconds: number;
  readonly isPinned: boolean;
  readonly isJson: boolean;
  readonly svgPath: string | undefined;
  readonly nodeFlags: readonly string[];
  readonly baseline: string | undefined;
  readonly keepsFiles: boolean;
}

function chosen<T extends string>(flag: string, text: string | undefined, all: readonly T[]): readonly T[] {
  if (text === undefined) return all;
  const names = text.split(',');
  const unknown = names.find((name) => !all.some((known) => known === name));
  if (unknown !== undefined) throw new Error(`${flag}: ${unknown} is none of ${all.join(', ')}`);
  return all.filter((known) => names.includes(known));
}

function count(flag: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${flag}: ${text} is not a positive whole number`);
  return value;
}

/** `undefined` when help was asked for. */
export function parseOptions(argv: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      rounds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      scenarios: { type: 'string' },
      idle: { type: 'string' },
      pin: { type: 'boolean', default: false },
      output: { type: 'string', default: 'table' },
      svg: { type: 'string' },
      'node-flags': { type: 'string', default: '' },
      baseline: { type: 'string' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  if (values.output !== 'table' && values.output !== 'json') throw new Error('--output: table or json');
  return {
    rounds: count('--rounds', values.rounds ?? (values.quick ? '1' : '3')),
    bulkSeconds: values.quick ? 1 : 2,
    requestSeconds: values.quick ? 1 : 2,
    columns: [
      ...(values.only === undefined && values.quick ? COLUMNS : chosen('--only', values.only, ALL)),
      ...(values.baseline === undefined ? [] : ['baseline' as const]),
    ],
    scenarios: chosen('--scenarios', values.scenarios, SCENARIOS),
    idleConnections: count('--idle', values.idle ?? (values.quick ? '2000' : '5000')),
    settleSeconds: values.quick ? 1 : 4,
    isPinned: values.pin,
    isJson: values.output === 'json',
    svgPath: values.svg,
    nodeFlags: values['node-flags'].split(' ').filter((flag) => flag !== ''),
    baseline: values.baseline,
    keepsFiles: values.keep,
  };
}
