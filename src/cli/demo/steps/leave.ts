/** (f) Un-enrolment: the pods leave the mesh as they came. */
import { formatFlow } from '../../lab/packet.ts';
import { hexRows } from '../evidence.ts';
import type { Report } from '../report.ts';
import { MESHED, type Stage } from '../stage.ts';
import { until } from '../waiting.ts';
import { isUntouched, ms } from './enrol.ts';
import { describeOutcome, sees } from './outcome.ts';

const RELEASE_TIMEOUT_MS = 20_000;

export async function leave(stage: Stage, report: Report): Promise<void> {
  report.step('f', 'Un-enrolment');
  const startedMs = performance.now();
  stage.enrol([]);
  const rules = await untilNothingIsLeft(stage);
  const tookMs = performance.now() - startedMs;
  report.claim('redirection is gone from all four pods', rules.length === 0, [
    `${rules.length} nft rules and policy routes of the agent are left, ${ms(tookMs)} after the pods were unlisted`,
    ...rules,
  ]);

  const request = 'basket?card=4555-5555-5555-5555';
  const shop = stage.app('shop');
  const outcome = await shop.get(stage.url('cart', request));
  await stage.settleWire();
  const [clear] = stage.tap.findClear(request);
  const isPlain = sees(outcome, shop.pod.ip) && clear !== undefined;
  report.claim('shop talks to cart as on the first day, in clear', isPlain, [
    describeOutcome('shop', stage.url('cart', request), outcome),
    ...(clear === undefined ? [] : [formatFlow(clear), ...hexRows(clear.bytes, 1)]),
  ]);
  const pids = stage.apps.map((app) => `${app.pod.name} ${app.pid}`).join('  ');
  report.claim('every program is still the process it was', isUntouched(stage), [`pids: ${pids}`]);
}

async function untilNothingIsLeft(stage: Stage): Promise<readonly string[]> {
  let rules: readonly string[] = [];
  const isGone = async () => {
    rules = await leftOver(stage);
    return rules.length === 0 || undefined;
  };
  await until(isGone, RELEASE_TIMEOUT_MS, () => 'rules stay').catch(() => undefined);
  return rules;
}

/** What the agents left behind in the pods, as the tools print it. */
async function leftOver(stage: Stage): Promise<readonly string[]> {
  const perPod = MESHED.map(async (name) => {
    const { inside } = stage.lab.pod(name);
    const [nft, rules] = await Promise.all([
      inside.exec(['nft', 'list', 'ruleset']),
      inside.exec(['ip', 'rule', 'list', 'pref', '32764']),
    ]);
    const lines = `${nft.stdout}${rules.stdout}`.split('\n').filter((line) => line.trim() !== '');
    return lines.map((line) => `${name}: ${line}`);
  });
  return (await Promise.all(perPod)).flat();
}
