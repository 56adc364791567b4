/** `npm run soak`: two agents under churn of everything; exit code 0 when nothing failed, nothing is left and nothing grows. */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Noise } from '../noise.ts';
import { renderSoakChart } from './chart.ts';
import type { Ledger } from './ledger.ts';
import { progressText, renderCounts, renderSlopes, verdictOf } from './report.ts';
import type { Sample } from './samples.ts';
import { DEFAULTS, type SoakOptions, soak } from './soak.ts';

const HELP = `npm run soak -- [options]

Two nodes and a cluster of Istio made of network namespaces. Connections come and go in every way, pods are added and
deleted, policies cut connections, certificates are renewed and roots rotated, control plane and CNI agents go and come
back. Every few seconds all that the agents hold is counted. Needs root; leaves nothing behind, on Ctrl-C neither.

  --minutes N     how long (default ${DEFAULTS.minutes})
  --workers N     data-plane threads of each agent (default ${DEFAULTS.workers})
  --streams N     long-lived connections (default ${DEFAULTS.streams})
  --calls N       new connections per second (default ${DEFAULTS.callsPerSecond})
--stalls N      stop each agent now and then for up to N seconds, as if it had no CPU (default 0: never)
  --svg FILE      write a chart
  --output json   print everything as JSON instead of the table
  --help

Exit code 0: no connection failed, no byte was wrong, everything was given back, and no figure grows with time.
`;
/** Where standard error is no terminal, a line so often. */
const LINE_MS = 30_000;
const MAX_MINUTES = 24 * 60;

interface Asked extends SoakOptions {
  readonly isJson: boolean;
  readonly svgPath: string | undefined;
}

function asked(argv: readonly string[]): Asked | undefined {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      minutes: { type: 'string', default: String(DEFAULTS.minutes) },
      workers: { type: 'string', default: String(DEFAULTS.workers) },
      streams: { type: 'string', default: String(DEFAULTS.streams) },
      calls: { type: 'string', default: String(DEFAULTS.callsPerSecond) },
      stalls: { type: 'string', default: '0' },
      svg: { type: 'string' },
      output: { type: 'string', default: 'table' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  if (values.output !== 'table' && values.output !== 'json') throw new Error('--output: table or json');
  return {
    minutes: count('--minutes', values.minutes, MAX_MINUTES),
    workers: count('--workers', values.workers, 16),
    streams: count('--streams', values.streams, 2_000),
    callsPerSecond: count('--calls', values.calls, 500),
    sampleMs: DEFAULTS.sampleMs,
    lifetimeMs: DEFAULTS.lifetimeMs,
    stallMs: 1_000 * count('--stalls', values.stalls, 40, 0),
    isJson: values.output === 'json',
    svgPath: values.svg,
  };
}

function count(flag: string, text: string, most: number, least = 1): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most)
    throw new Error(`${flag}: a whole number from ${least} to ${most}`);
  return value;
}

/** One line that is written over on a terminal, plain lines elsewhere. */
function teller(minutes: number): (sample: Sample, ledger: Ledger) => void {
  const { stderr } = process;
  let nextMs = 0;
  return (sample, ledger) => {
    const text = `soak ${progressText(sample, ledger, minutes)}`;
    if (stderr.isTTY) stderr.write(`\r\u001b[K${text.slice(0, stderr.columns - 1)}`);
    else if (sample.atMs >= nextMs) {
      nextMs = sample.atMs + LINE_MS;
      stderr.write(`${text}\n`);
    }
  };
}

async function main(): Promise<void> {
  const options = asked(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(HELP);
    return;
  }
  const { isJson, svgPath, ...how } = options;
  if (process.geteuid?.() !== 0) throw new Error('network namespaces need root');
  const noise = new Noise();
  const report = await soak(how, teller(how.minutes));
  if (process.stderr.isTTY) process.stderr.write('\n');
  const { findings, isGood, text } = verdictOf(report);
  const othersShare = noise.othersShare();
  const conditions = `${how.minutes} minutes, ${how.workers} workers per agent; Node ${process.version}; ${(othersShare * 100).toFixed(0)} % of the machine used by others`;
  if (svgPath !== undefined)
    writeFileSync(svgPath, renderSoakChart(report.samples, [conditions, renderCounts(report)]));
  process.exitCode = isGood ? 0 : 1;
  if (isJson) {
    process.stdout.write(
      `${JSON.stringify({ ...report, othersShare, findings, isGood, verdict: text }, undefined, 1)}\n`,
    );
    return;
  }
  const failures = report.failures.map((line) => `  ${line}\n`).join('');
  process.stdout.write(`${conditions}\n${renderCounts(report)}\n\n${renderSlopes(findings)}\n\n${failures}${text}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`soak: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
