/** (e) The agent dies by SIGKILL: its pods are cut off, not laid open. Then it comes back. */
import { describeStream } from '../evidence.ts';
import type { Report } from '../report.ts';
import type { Stage } from '../stage.ts';
import { until } from '../waiting.ts';
import { isUntouched, ms } from './enrol.ts';
import { describeOutcome } from './outcome.ts';
import { isOnTunnelPort } from './tunnel.ts';

const ATTEMPTS = 5;
const RETURN_TIMEOUT_MS = 30_000;

export async function crash(stage: Stage, report: Report): Promise<void> {
  report.step('e', 'The agent of node-a is killed');
  const [agent] = stage.agents;
  const since = stage.tap.position;
  const { pid } = agent;
  await agent.kill();
  await withoutAgent(stage, report, { pid, since });
  await comeBack(stage, report);
}

async function withoutAgent(
  stage: Stage,
  report: Report,
  { pid, since }: { readonly pid: number; readonly since: number },
): Promise<void> {
  const shop = stage.app('shop');
  const request = 'basket?card=4333-3333-3333-3333';
  const outcomes = [];
  for (let i = 0; i < ATTEMPTS; i++) outcomes.push(await shop.get(stage.url('cart', request)));
  await stage.settleWire();

  const [first] = outcomes;
  const isRefused = outcomes.every((outcome) => !outcome.isAnswered);
  report.claim(`SIGKILL to pid ${pid}: connections of shop are refused`, isRefused, [
    first === undefined ? '' : `${ATTEMPTS} × ${describeOutcome('shop', stage.url('cart', request), first)}`,
  ]);
  const streams = stage.tap.streams(since).filter(({ from, to }) => from.ip === shop.pod.ip || to.ip === shop.pod.ip);
  const outside = streams.filter((stream) => !isOnTunnelPort(stream));
  const readable = stage.tap.findClear(request);
  report.claim('nothing of shop leaves the node in clear', outside.length === 0 && readable.length === 0, [
    `sniffer: ${outside.length} streams of shop outside port 15008, ${readable.length} hold "${request}"`,
    ...outside.map((stream) => describeStream(stream)),
  ]);
}

async function comeBack(stage: Stage, report: Report): Promise<void> {
  const [agent] = stage.agents;
  const request = 'basket?card=4444-4444-4444-4444';
  const startedMs = performance.now();
  const started = agent.start();
  const answer = until(
    async () => {
      const outcome = await stage.app('shop').get(stage.url('cart', request));
      return outcome.isAnswered ? { outcome, afterMs: performance.now() - startedMs } : undefined;
    },
    RETURN_TIMEOUT_MS,
    () => 'traffic of shop does not come back',
  );
  const [readyMs, { outcome, afterMs }] = await Promise.all([started, answer]);
  await stage.settleWire();
  report.claim(`restarted: traffic flows again after ${ms(afterMs)}`, true, [
    `pid ${agent.pid}: first answer ${ms(afterMs)}, ready ${ms(readyMs)} after the process was started`,
    describeOutcome('shop', stage.url('cart', request), outcome),
  ]);
  const readable = stage.tap.findClear(request).length;
  report.claim('and none of it in clear; no program was restarted', readable === 0 && isUntouched(stage), [
    `sniffer: ${readable} streams hold "${request}"`,
  ]);
}
