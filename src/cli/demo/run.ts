/** The story of the demo from start to end: every claim is observed or the exit code says so. */
import { messageOf } from '../../base/errors.ts';
import type { Family } from '../lab/plan.ts';
import { shortLogLine, sumTraffic, table } from './evidence.ts';
import { Report, type Screen } from './report.ts';
import { MESHED, OUTSIDER, Stage } from './stage.ts';
import { before } from './steps/before.ts';
import { crash } from './steps/crash.ts';
import { enrol } from './steps/enrol.ts';
import { leave } from './steps/leave.ts';
import { policy } from './steps/policy.ts';
import { tunnel } from './steps/tunnel.ts';

export interface DemoOptions {
  readonly family: Family;
  readonly isKept: boolean;
}

export interface DemoResult {
  readonly isGood: boolean;
  readonly durationMs: number;
  readonly steps: Report['steps'];
  readonly accessLog: readonly string[];
  readonly counters: readonly CounterRow[];
  /** Of a kept lab. */
  readonly labId?: string;
}

interface CounterRow {
  readonly node: string;
  readonly reporter: string;
  readonly policy: string;
  readonly counters: ReturnType<typeof sumTraffic>;
}

const STEPS = [before, enrol, tunnel, policy, crash, leave];
const SHOWN_LOG_LINES = 6;

export async function runDemo(options: DemoOptions, screen: Screen): Promise<DemoResult> {
  const startedMs = performance.now();
  const report = new Report(screen);
  await using stage = await Stage.create({ family: options.family, isStaying: options.isKept });
  report.heading('Culvert demo: two nodes, four pods, and a client outside the mesh, all on this machine');
  report.lines(drawing(stage));

  const counters = await tell(stage, report);
  const accessLog = stage.agents.flatMap((agent) => accessLogOf(stage, agent.node.name));
  showEnd(report, accessLog, counters);
  const durationMs = performance.now() - startedMs;
  const { observed, all } = report.counts;
  report.heading(`${observed} of ${all} claims observed in ${(durationMs / 1000).toFixed(1)} s`);
  const result = { isGood: report.isGood, durationMs, steps: report.steps, accessLog, counters };
  if (!options.isKept) return result;
  await leaveUp(stage);
  report.lines(whatToTry(stage));
  return { ...result, labId: stage.lab.id };
}

/** A step that fails ends the story: what follows would only repeat the failure. */
async function tell(stage: Stage, report: Report): Promise<readonly CounterRow[]> {
  let counters: readonly CounterRow[] = [];
  try {
    for (const step of STEPS) {
      await step(stage, report);
      if (step === crash) counters = await readCounters(stage);
    }
  } catch (error) {
    report.claim('this step could be shown', false, [messageOf(error), ...logTails(stage)]);
  }
  return counters;
}

function logTails(stage: Stage): readonly string[] {
  return stage.agents.flatMap((agent) => {
    try {
      return [`log of ${agent.node.name}:`, ...agent.logTail()];
    } catch {
      return [`${agent.node.name} has no log`];
    }
  });
}

function drawing(stage: Stage): readonly string[] {
  const cells = [...stage.lab.nodes.values()].map((node) => [
    `${node.name} ${node.ips.join(' ')}`,
    ...node.pods.map((pod) => `  ${pod.name} ${pod.ips.join(' ')}${pod.name === OUTSIDER ? ' (never enrolled)' : ''}`),
  ]);
  const [left = [], right = []] = cells;
  const width = Math.max(...left.map((cell) => cell.length));
  return left.map((cell, i) =>
    `${cell.padEnd(width)}  ${i === 0 ? '── sniffer ──' : '             '}  ${right[i] ?? ''}`.trimEnd(),
  );
}

function accessLogOf(stage: Stage, node: string): readonly string[] {
  const agent = stage.agents.find((candidate) => candidate.node.name === node);
  try {
    const lines = agent?.logLines().filter((line) => line.includes('\taccess\t')) ?? [];
    return lines.slice(-SHOWN_LOG_LINES).map((line) => shortLogLine(node, line));
  } catch {
    return [];
  }
}

async function readCounters(stage: Stage): Promise<readonly CounterRow[]> {
  const rows = stage.agents.map(async (agent) => {
    const metrics = await agent.metrics();
    const kinds = [
      { reporter: 'source', policy: 'mutual_tls' },
      { reporter: 'destination', policy: 'mutual_tls' },
      { reporter: 'destination', policy: 'unknown' },
    ];
    return kinds.map(({ reporter, policy: kind }) => {
      const labels = { reporter, connection_security_policy: kind };
      return { node: agent.node.name, reporter, policy: kind, counters: sumTraffic(metrics, labels) };
    });
  });
  return (await Promise.all(rows)).flat().filter((row) => row.counters.opened > 0);
}

function showEnd(report: Report, accessLog: readonly string[], counters: readonly CounterRow[]): void {
  if (counters.length === 0) return;
  report.heading(
    'Access log, the last lines of each node (sent/received as that node counts; the log itself has more fields)',
  );
  report.lines(accessLog);
  report.heading('Counters before un-enrolment, from port 15020 (node-a: since its restart)');
  const head = ['node', 'reporter', 'security', 'opened', 'closed', 'denied', 'to server', 'to client'];
  const rows = counters.map(({ node, reporter, policy: kind, counters: sums }) => [
    node,
    reporter,
    kind,
    sums.opened,
    sums.closed,
    sums.denied,
    `${sums.toServerBytes} B`,
    `${sums.toClientBytes} B`,
  ]);
  report.lines(table([head, ...rows]));
}

/** A lab that stays is more use in the mesh than out of it. */
async function leaveUp(stage: Stage): Promise<void> {
  stage.enrol(MESHED);
  await stage.untilCaptured(MESHED);
  await stage.keep();
}

function whatToTry(stage: Stage): readonly string[] {
  const shop = stage.lab.pod('shop');
  const blog = stage.lab.pod('blog');
  const run = 'node scripts/run.mjs src/cli/main.ts';
  const fetchOf = (url: string) =>
    `node -e 'fetch("${url}").then((r) => r.text()).catch((e) => String(e.cause)).then(console.log)'`;
  return [
    '',
    'Everything stays up, enrolled, with the policy in force. Try:',
    `  nsenter --net=${shop.inside.path} ${fetchOf(stage.serviceUrl('hello'))}    # allowed`,
    `  nsenter --net=${blog.inside.path} ${fetchOf(stage.serviceUrl('hello'))}    # refused; then look why:`,
    ...stage.agents.map((agent) => `  tail ${agent.logFile}`),
    `  nsenter --net=${stage.agents[0].node.inside.path} ${run} status`,
    `  nsenter --net=${stage.agents[0].node.inside.path} ${run} connections`,
    `  ${'$EDITOR'} ${stage.meshFile}    # change the policy, and watch the logs`,
    'And to remove it all:',
    `  npm run demo -- --clean ${stage.lab.id}`,
  ];
}
