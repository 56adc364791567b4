/**
 * What one workload may use of an agent, and how people write it: in the annotation `culvert.io/budget` of a pod as
 * `connections=2000,handshakes=50/s,buffers=64Mi,loop=25%`, in a file (`agent/budget-file.ts`) key by key, the same values.
 */

export interface Budget {
  /** Open at once, in both directions together. */
  readonly connections: number;
  /** TLS handshakes begun per second, over a second. */
  readonly handshakesPerSecond: number;
  /** Bytes taken from one side and not yet given to the other. */
  readonly bufferedBytes: number;
  /** Of the time of each event loop: 0.25 is a quarter. 1 is no bound. */
  readonly loopShare: number;
}

export type BudgetChange = Partial<Budget>;

/** A value, or what is wrong with it. */
export type Parsed<T> = { readonly value: T } | { readonly problem: string };

interface Key {
  readonly field: keyof Budget;
  readonly what: string;
  /** The whole value; the first group is the number. */
  readonly form: RegExp;
  readonly least: number;
  readonly most: number;
  /** What the number is in the unit of the field. */
  readonly read: (digits: string, unit: string) => number;
}

const KIB = 1024;
const UNITS: Readonly<Record<string, number>> = { Ki: KIB, Mi: KIB ** 2, Gi: KIB ** 3 };

const KEYS = {
  connections: {
    field: 'connections',
    what: 'a whole number from 1 to 1000000',
    form: /^(\d{1,15})$/,
    least: 1,
    most: 1_000_000,
    read: Number,
  },
  handshakes: {
    field: 'handshakesPerSecond',
    what: 'a whole number from 1/s to 100000/s',
    form: /^(\d{1,15})\/s$/,
    least: 1,
    most: 100_000,
    read: Number,
  },
  buffers: {
    field: 'bufferedBytes',
    what: 'a size from 1Mi to 64Gi, with Ki, Mi or Gi',
    form: /^(\d{1,15})(Ki|Mi|Gi)$/,
    least: KIB ** 2,
    most: 64 * KIB ** 3,
    read: (digits, unit) => Number(digits) * (UNITS[unit] ?? Number.NaN),
  },
  loop: {
    field: 'loopShare',
    what: 'a share from 1% to 100%',
    form: /^(\d{1,15})%$/,
    least: 0.01,
    most: 1,
    read: (digits) => Number(digits) / 100,
  },
} as const satisfies Record<string, Key>;

export type BudgetKey = keyof typeof KEYS;

export const BUDGET_KEYS = Object.keys(KEYS) as readonly BudgetKey[];

/** Longest text that can be right. */
const MAX_CHARS = 256;

export function parseBudgetValue(key: BudgetKey, text: string): Parsed<BudgetChange> {
  const { field, what, form, least, most, read }: Key = KEYS[key];
  const [, digits, unit = ''] = form.exec(text) ?? [];
  const value = digits === undefined ? Number.NaN : read(digits, unit);
  if (!(value >= least && value <= most)) return { problem: `${key} must be ${what}, got ${quoted(text)}` };
  return { value: { [field]: value } };
}

/** Taken whole or not at all: half a budget is nothing that anybody meant. */
export function parseBudget(text: string): Parsed<BudgetChange> {
  if (text.length > MAX_CHARS) return { problem: `over ${MAX_CHARS} characters` };
  const seen = new Set<string>();
  let change: BudgetChange = {};
  for (const part of text.split(',')) {
    const [name = '', value, ...more] = part.trim().split('=');
    const key = BUDGET_KEYS.find((known) => known === name);
    if (key === undefined || value === undefined || more.length > 0) {
      return { problem: `${quoted(part.trim())} is not one of ${BUDGET_KEYS.join('=…, ')}=…` };
    }
    if (seen.has(key)) return { problem: `${key} is there twice` };
    seen.add(key);
    const parsed = parseBudgetValue(key, value);
    if ('problem' in parsed) return parsed;
    change = { ...change, ...parsed.value };
  }
  return { value: change };
}

/** What is left for one of `threads` that carry the pod's traffic: the kernel spreads its connections evenly. */
export function budgetPart(budget: Budget, threads: number): Budget {
  const part = (bound: number): number => Math.ceil(bound / threads);
  return {
    connections: part(budget.connections),
    handshakesPerSecond: part(budget.handshakesPerSecond),
    bufferedBytes: part(budget.bufferedBytes),
    loopShare: budget.loopShare,
  };
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}
