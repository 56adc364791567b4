/** `npm run demo:upgrade`: 1,000 live connections while the agents of two nodes are replaced five times each, once both at the same moment. Exit code 0: all claims hold. */
import process from 'node:process';
import { liveUpgrades, type UpgradeReport } from '../support/upgrade.ts';

const OPTIONS = {
  streams: 1_000,
  rounds: ['in-turn', 'in-turn', 'in-turn', 'in-turn', 'at-once'],
  newPerSecond: 200,
  intervalMs: 1_000,
} as const;

function quantile(sorted: readonly number[], share: number): string {
  return `${Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0)} ms`;
}

function claims(report: UpgradeReport): readonly (readonly [claim: string, holds: boolean, found: string])[] {
  const { failures, failedNew, badLines, exits, newConnections, records, moved, tunnelled, upgrades, streams } = report;
  return [
    ['no live connection is reset, loses or doubles a byte', failures.length === 0, `${failures.length} of ${streams}`],
    ['no new connection fails', failedNew.length === 0, `${failedNew.length} of ${newConnections}`],
    ['each connection has one line in the log, without an error', badLines === 0, `${badLines} bad lines`],
    // Of each four connections three pass a node, two of them in tunnels.
    ['connections move', moved >= upgrades * 0.74 * streams, `${moved} in ${upgrades} upgrades, ${report.held} held`],
    ['streams of tunnels move, in both directions', tunnelled >= upgrades * 0.49 * streams, `${tunnelled}`],
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
process.stdout.write(
  `pause of a connection: p50 ${quantile(pausesMs, 0.5)}, p99 ${quantile(pausesMs, 0.99)}, max ${quantile(pausesMs, 1)}\n`,
);
process.stdout.write(`of it without an owner, per upgrade: ${handOversMs.map((ms) => `${ms} ms`).join(', ')}\n`);
for (const line of [...failures, ...failedNew].slice(0, 20)) process.stdout.write(`  ${line}\n`);
process.exitCode = found.every(([, holds]) => holds) ? 0 : 1;
