/**
 * `npm run demo:upgrade`: 1,000 live connections while the agents of two nodes are replaced, five times one after the other and
 * once both at the same moment. Exit code 0: all claims hold.
 */
import process from 'node:process';
import { liveUpgrades, MOVED_PER_STREAM, TUNNELLED_PER_STREAM, type UpgradeReport } from '../support/upgrade.ts';

const OPTIONS = {
  streams: 1_000,
  rounds: ['in-turn', 'in-turn', 'in-turn', 'in-turn', 'in-turn', 'at-once'],
  newPerSecond: 200,
  intervalMs: 1_000,
} as const;

function quantile(sorted: readonly number[], share: number): string {
  return `${Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0)} ms`;
}

function claims(report: UpgradeReport): readonly (readonly [claim: string, holds: boolean, found: string])[] {
  const { failures, failedNew, badLines, exits, newConnections, records, moved, tunnelled, upgrades, streams } = report;
  // A few may be too slow for it, and stay.
  const most = 0.98 * upgrades * streams;
  return [
    ['no live connection is reset, loses or doubles a byte', failures.length === 0, `${failures.length} of ${streams}`],
    ['no new connection fails', failedNew.length === 0, `${failedNew.length} of ${newConnections}`],
    ['each connection has one line in the log, without an error', badLines === 0, `${badLines} bad lines`],
    ['connections move', moved >= most * MOVED_PER_STREAM, `${moved} in ${upgrades} upgrades, ${report.held} held`],
    ['streams of tunnels move, in both directions', tunnelled >= most * TUNNELLED_PER_STREAM, `${tunnelled}`],
    ['replaced agents end while all connections go on', report.gone === upgrades, `${report.gone} of ${upgrades}`],
    ['every record came back', records > streams, `${records} records`],
    ['replaced agents end in order', exits.every((code) => code === 0), exits.join(' ')],
  ];
}

const report = await liveUpgrades(OPTIONS);
const found = claims(report);
for (const [claim, holds, detail] of found)
  process.stdout.write(`${holds ? 'ok    ' : 'FAILED'}  ${claim} (${detail})\n`);
const { pausesMs, handOversMs, failures, failedNew } = report;
for (const [kind, ms] of Object.entries(pausesMs)) {
  const [p50, p99, most] = [0.5, 0.99, 1].map((share) => quantile(ms, share));
  process.stdout.write(`pause of a connection, nodes ${kind.replace('-', ' ')}: p50 ${p50}, p99 ${p99}, max ${most}\n`);
}
process.stdout.write(`of it without an owner, per upgrade: ${handOversMs.map((ms) => `${ms} ms`).join(', ')}\n`);
for (const line of [...failures, ...failedNew].slice(0, 20)) process.stdout.write(`  ${line}\n`);
process.exitCode = found.every(([, holds]) => holds) ? 0 : 1;
