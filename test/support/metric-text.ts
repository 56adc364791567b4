/** Reads counters out of a metrics page (OpenMetrics text). */
import type { AgentProcess } from './agent-process.ts';

type Labels = Readonly<Record<string, string>>;

/** Sum of all samples of `name` whose labels include `labels`. 0 when there is none. */
export function metricSum(page: string, name: string, labels: Labels = {}): number {
  let sum = 0;
  for (const line of page.split('\n')) {
    const [, found, inBraces = '', value] = /^([a-zA-Z_:]\w*)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (found !== name || value === undefined) continue;
    const has = Object.fromEntries([...inBraces.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, k, v]) => [k, v]));
    if (Object.entries(labels).every(([label, wanted]) => has[label] === wanted)) sum += Number(value);
  }
  return sum;
}

export async function metricsOf(agent: AgentProcess): Promise<(name: string, labels?: Labels) => number> {
  const { body } = await agent.get('/metrics', 15_020);
  return (name, labels) => metricSum(body, name, labels);
}
