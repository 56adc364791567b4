/** What an agent process holds, seen from outside: descriptors, handles and timers of each thread, entries of its maps. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentProcess } from './agent-process.ts';

/** What is bounded and stays, as caches do, is no part of it. */
export type Held = Readonly<Record<string, number>>;

const FAMILIES = /^(nodejs_active_resources|culvert_map_entries)\{thread="([^"]+)",(?:type|map)="([^"]+)"\} (\d+)$/;
const POLL_MS = 100;
/** Time for what is on its way out, threads of the greedy lane among it; only a leak takes so long. */
const PATIENCE_MS = 150_000;

export function descriptors({ pid }: AgentProcess): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

async function heldBy(agent: AgentProcess): Promise<Held> {
  const { body } = await agent.get('/metrics', 15_020);
  const held: Record<string, number> = { descriptors: descriptors(agent) };
  for (const line of body.split('\n')) {
    const [, family = '', thread = '', kind = '', count] = FAMILIES.exec(line) ?? [];
    if (count !== undefined)
      held[`${thread} ${family === 'culvert_map_entries' ? 'entries of ' : ''}${kind}`] = Number(count);
  }
  assert(held['main Timeout'] !== undefined, 'the agent does not tell what its threads hold');
  return held;
}

/** What it holds when nothing comes or goes: looked at until it is the same three times in a row. */
export async function calmHoldings(agent: AgentProcess): Promise<Held> {
  for (let [last, same] = ['', 0]; ; await sleep(POLL_MS)) {
    const held = await heldBy(agent);
    const text = JSON.stringify(held);
    same = text === last ? same + 1 : 0;
    last = text;
    if (same === 2) return held;
  }
}

/** The most it holds of anything while traffic goes on: of several looks. */
export async function busyHoldings(agent: AgentProcess): Promise<Held> {
  const most: Record<string, number> = {};
  for (let looks = 0; looks < 10; looks += 1) {
    for (const [kind, count] of Object.entries(await heldBy(agent))) most[kind] = Math.max(most[kind] ?? 0, count);
    await sleep(POLL_MS);
  }
  return most;
}

/** Resolves when the agent holds no more of anything than `before`. */
export async function nothingLeft(agent: AgentProcess, before: Held): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  for (;;) {
    const more = Object.entries(await heldBy(agent)).filter(([kind, count]) => count > (before[kind] ?? 0));
    if (more.length === 0) return;
    if (performance.now() > endMs) {
      assert.fail(more.map(([kind, count]) => `${kind}: ${before[kind] ?? 0} before, ${count} now`).join('\n'));
    }
    await sleep(POLL_MS);
  }
}
