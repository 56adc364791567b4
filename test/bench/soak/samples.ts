/** What an agent holds, again and again, as numbers over time. */

import type { AgentProcess } from '../../support/agent-process.ts';
import { descriptors } from '../../support/holdings.ts';
import { metricSum } from '../../support/metric-text.ts';

/** Name of a figure → its value. */
export type Reading = Readonly<Record<string, number>>;

export interface Sample {
  readonly atMs: number;
  /** By node. */
  readonly agents: Readonly<Record<string, Reading>>;
}

const MIB = 1024 * 1024;
const LABELLED = /^(culvert_map_entries|culvert_cache_entries)\{thread="[^"]+",(?:map|cache)="([^"]+)"\} (\d+)$/;
const FAMILY = { culvert_map_entries: 'entries', culvert_cache_entries: 'cached' } as const;

/** Compiled code of all threads. */
const CODE = 'code, MiB';

/** It fills with use up to a bound: caches, and code, of which there is no more than functions. */
export function isBounded(figure: string): boolean {
  return figure === CODE || figure.startsWith(`${FAMILY.culvert_cache_entries}: `);
}

/** All threads of an agent together. */
export async function readingOf(agent: AgentProcess): Promise<Reading> {
  const { body } = await agent.get('/metrics', 15_020);
  const timers = metricSum(body, 'nodejs_active_resources', { type: 'Timeout' });
  const memory = (kind: string): number => metricSum(body, 'culvert_thread_memory_bytes', { kind }) / MIB;
  const code = memory('code');
  const rss = agent.rssBytes / MIB;
  const reading: Record<string, number> = {
    'RSS, MiB': rss,
    'RSS less code, MiB': rss - code,
    'heap, MiB': memory('heap'),
    [CODE]: code,
    'external, MiB': memory('external'),
    descriptors: descriptors(agent),
    timers,
    handles: metricSum(body, 'nodejs_active_resources') - timers,
  };
  for (const line of body.split('\n')) {
    const [, family, name, count] = LABELLED.exec(line) ?? [];
    if (family === undefined) continue;
    const figure = `${FAMILY[family as keyof typeof FAMILY]}: ${name}`;
    reading[figure] = (reading[figure] ?? 0) + Number(count);
  }
  return reading;
}

/** The values of one figure of one agent that there are, and when. */
export function seriesOf(
  samples: readonly Sample[],
  node: string,
  figure: string,
): readonly (readonly [number, number])[] {
  return samples.flatMap(({ atMs, agents }) => {
    const value = agents[node]?.[figure];
    return value === undefined ? [] : [[atMs, value] as const];
  });
}
