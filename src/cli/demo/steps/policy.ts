/** (d) A policy, applied live: it decides by identity, cuts what it forbids, and every refusal says why. */
import type { HeldConnection } from '../app.ts';
import { reasonCode, shortLogLine } from '../evidence.ts';
import { principalOf } from '../mesh-file.ts';
import type { Report } from '../report.ts';
import { OUTSIDER, type PodName, type Stage } from '../stage.ts';
import { within } from '../waiting.ts';
import { ms } from './enrol.ts';
import { describeOutcome } from './outcome.ts';

const POLICY = { name: 'only-shop', protects: 'cart', allows: 'shop' };
const CUT_TIMEOUT_MS = 20_000;

export async function policy(stage: Stage, report: Report): Promise<void> {
  report.step('d', `A policy: only ${principalOf('shop')} may reach cart`);
  const held = await stage.app('blog').hold(stage.url('cart', 'ticks'));
  const free = await stage.app('blog').get(stage.url('cart', 'no-policy-yet'));
  report.claim('without a policy blog is let in, and keeps a connection open', free.isAnswered, [
    describeOutcome('blog', stage.url('cart', 'no-policy-yet'), free),
  ]);
  await applied(stage, report, held);
  await allowed(stage, report, 'shop', 'cart');
  await refused(stage, report, 'blog', 'the wrong identity');
  await refused(stage, report, OUTSIDER, 'the plaintext client');
  await allowed(stage, report, 'blog', 'stock');
}

async function applied(stage: Stage, report: Report, held: HeldConnection): Promise<void> {
  const startedMs = performance.now();
  stage.applyPolicy(POLICY);
  const error = await within(held.cut, CUT_TIMEOUT_MS, 'the open connection of blog lives on');
  const tookMs = performance.now() - startedMs;
  const [, nodeB] = stage.agents;
  const line = await nodeB.findLogLine('direction="inbound"', 'src.workload="blog"', 'CV-POLICY-CHANGED');
  report.claim('the open connection of blog is cut', true, [
    `blog saw ${error} ${ms(tookMs)} after the mesh file was saved`,
    shortLogLine('node-b', line),
  ]);
}

async function allowed(stage: Stage, report: Report, client: PodName, server: PodName): Promise<void> {
  const url = stage.url(server, `from-${client}`);
  const outcome = await stage.app(client).get(url);
  const why = server === 'cart' ? 'is allowed by name' : 'no policy protects it';
  report.claim(`${client} reaches ${server}: ${why}`, outcome.isAnswered, [describeOutcome(client, url, outcome)]);
}

/** The refusal, and the same reason in the logs of both sides (a client outside the mesh has no log). */
async function refused(stage: Stage, report: Report, client: PodName, what: string): Promise<void> {
  const url = stage.url('cart', `from-${client}`);
  const outcome = await stage.app(client).get(url);
  const [nodeA, nodeB] = stage.agents;
  const { ip } = stage.lab.pod(client);
  const inbound = await nodeB.findLogLine('direction="inbound"', `src.addr=${atHost(ip)}`, 'CV-POLICY-NOT-ALLOWED');
  const lines = [shortLogLine('node-b', inbound)];
  const codes = [reasonCode(inbound)];
  if (client !== OUTSIDER) {
    const outbound = await nodeA.findLogLine('direction="outbound"', `src.workload="${client}"`, 'CV-CONNECT-DENIED');
    lines.unshift(shortLogLine('node-a', outbound));
    codes.unshift(reasonCode(outbound));
  }
  report.claim(`${client}, ${what}, is refused: ${codes.join(' and ')}`, !outcome.isAnswered, [
    describeOutcome(client, url, outcome),
    ...lines,
  ]);
}

/** As an address and port begins in a log line. */
function atHost(ip: string): string {
  return ip.includes(':') ? `[${ip}]:` : `${ip}:`;
}
