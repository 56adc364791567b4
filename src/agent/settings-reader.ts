/** Reads settings from flags and environment, flags first, and collects every mistake instead of stopping at one. */

export type Environment = Readonly<Record<string, string | undefined>>;

export interface ConfigIssue {
  /** The flag or variable as the operator wrote it. */
  readonly setting: string;
  readonly problem: string;
}

/** Where one setting may come from. A flag wins over a variable. */
export interface Source {
  readonly env?: string;
  readonly flag?: string;
}

/** Node fires a timer that is set for longer at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface DurationBounds {
  readonly minMs?: number;
  readonly maxMs?: number;
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
  y: 31_536_000_000,
};

export class SettingsReader {
  readonly issues: ConfigIssue[] = [];
  readonly #env: Environment;
  readonly #flags: Environment;

  /** `flags` by name without dashes, values as typed. */
  constructor(env: Environment, flags: Environment) {
    this.#env = env;
    this.#flags = flags;
  }

  text(source: Source, fallback: string): string {
    return this.#find(source)?.text ?? fallback;
  }

  optional(source: Source): string | undefined {
    const text = this.#find(source)?.text;
    return text === '' ? undefined : text;
  }

  required(source: Source): string {
    const text = this.optional(source);
    if (text === undefined) this.issues.push({ setting: nameOf(source), problem: 'is required' });
    return text ?? '';
  }

  oneOf<T extends string>(source: Source, values: readonly T[], fallback: T): T {
    return this.#parse(source, fallback, `must be one of ${values.join(', ')}`, (text) =>
      values.find((value) => value === text),
    );
  }

  /** Exactly `true` or `false`, as the reference has it. */
  bool(source: Source, fallback: boolean): boolean {
    return this.oneOf(source, ['true', 'false'], fallback ? 'true' : 'false') === 'true';
  }

  integer(source: Source, bounds: { readonly fallback: number; readonly min: number; readonly max: number }): number {
    const { fallback, min, max } = bounds;
    return this.#parse(source, fallback, `must be a whole number from ${min} to ${max}`, (text) => {
      const value = Number(text);
      return /^\d+$/.test(text) && value >= min && value <= max ? value : undefined;
    });
  }

  /** `10s`, `1m30s`, or a bare number of seconds. Milliseconds. */
  durationMs(source: Source, fallbackMs: number, { minMs = 0, maxMs = MAX_TIMER_MS }: DurationBounds = {}): number {
    const problem = `must be a duration such as 30s, 5m or 1h30m, from ${minMs / 1_000}s to ${Math.trunc(maxMs / 1_000)}s`;
    return this.#parse(source, fallbackMs, problem, (text) => {
      const value = parseDurationMs(text);
      return value !== undefined && value >= minMs && value <= maxMs ? value : undefined;
    });
  }

  #parse<T>(source: Source, fallback: T, problem: string, parse: (text: string) => T | undefined): T {
    const found = this.#find(source);
    if (found === undefined) return fallback;
    const value = parse(found.text);
    if (value === undefined) this.issues.push({ setting: found.name, problem: `${problem}, got "${found.text}"` });
    return value ?? fallback;
  }

  #find({ env, flag }: Source): { name: string; text: string } | undefined {
    const flagText = flag === undefined ? undefined : this.#flags[flag];
    if (flagText !== undefined) return { name: `--${flag}`, text: flagText };
    const envText = env === undefined ? undefined : this.#env[env];
    return envText === undefined ? undefined : { name: env ?? '', text: envText };
  }
}

/** Milliseconds of `1m30s`, `250ms` or `30`; `undefined` when malformed. */
export function parseDurationMs(text: string): number | undefined {
  if (/^\d+$/.test(text)) return Number(text) * 1_000;
  if (!/^(\d+(ns|us|ms|[smhdwy]))+$/.test(text)) return undefined;
  let totalMs = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+)(ns|us|ms|[smhdwy])/g)) {
    totalMs += Number(amount) * (UNIT_MS[unit ?? ''] ?? Number.NaN);
  }
  return totalMs;
}

function nameOf({ env, flag }: Source): string {
  return [flag === undefined ? undefined : `--${flag}`, env].filter((name) => name !== undefined).join(' or ');
}
