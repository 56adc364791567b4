/** CPU time and memory of process trees, from /proc (proc(5)). The load generators are never in these sums. */
import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ is 100 on every Linux architecture Node runs on. */
const TICKS_PER_SECOND = 100;

export interface Memory {
  readonly rssBytes: number;
  /** Pages shared between the two proxies count half in each: smaller than RSS on one machine, equal on two. */
  readonly pssBytes: number;
}

interface Stat {
  readonly parent: number;
  readonly cpuTicks: number;
}

function readOrUndefined(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** utime, stime and those of reaped children (cutime, cstime): fields 14-17, counted after the parenthesised name. */
function readStat(pid: number): Stat | undefined {
  const text = readOrUndefined(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const cpuTicks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return { parent: Number(fields[1]), cpuTicks };
}

/** The given processes and all their living descendants. */
export function processTree(roots: readonly number[]): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid)) continue;
    const parent = readStat(pid)?.parent;
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const tree = [...roots];
  for (let at = 0; at < tree.length; at++) tree.push(...(children.get(tree[at] ?? 0) ?? []));
  return tree;
}

export function cpuSeconds(roots: readonly number[]): number {
  const ticks = processTree(roots).reduce((sum, pid) => sum + (readStat(pid)?.cpuTicks ?? 0), 0);
  return ticks / TICKS_PER_SECOND;
}

function kibibytes(text: string | undefined, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text ?? '')?.[1] ?? 0);
}

export function memory(roots: readonly number[]): Memory {
  const sum = { rssBytes: 0, pssBytes: 0 };
  for (const pid of processTree(roots)) {
    const rollup = readOrUndefined(`/proc/${pid}/smaps_rollup`);
    sum.rssBytes += kibibytes(rollup, 'Rss') * 1024;
    sum.pssBytes += kibibytes(rollup, 'Pss') * 1024;
  }
  return sum;
}

/** CPU seconds the whole machine has spent working, whoever asked: user to steal, without idle and iowait. */
export function machineCpuSeconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = machineTicks();
  return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND;
}

/** CPU seconds that a virtual machine wanted and others on its host had, in hundredths. */
export function stolenSeconds(): number {
  return (machineTicks()[7] ?? 0) / TICKS_PER_SECOND;
}

function machineTicks(): readonly number[] {
  return (readOrUndefined('/proc/stat') ?? '').split('\n', 1)[0]?.trim().split(/\s+/).slice(1).map(Number) ?? [];
}
