/** Reads settings from flags, environment and ProxyConfig, in this order, and collects every mistake instead of stopping at one. */

import type { ConfigIssue, Environment, Start } from './input.ts';
import { type ProxyConfig, type ProxyConfigKey, readProxyConfig } from './proxy-config.ts';

/** Where one setting may come from; the first that is set wins, in the order of these fields. */
export interface Source {
  readonly flag?: string;
  /** Without its prefix: `ISTIO_META_` variables and `proxyMetadata` of ProxyConfig. */
  readonly meta?: string;
  readonly env?: string;
  readonly config?: ProxyConfigKey;
}

/** Node fires a timer that is set for longer at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

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
  readonly issues: ConfigIssue[];
  readonly start: Start;
  readonly #env: Environment;
  readonly #flags: Environment;
  readonly #proxyConfig: ProxyConfig;

  /** `flags` by name without dashes, values as typed. */
  constructor(env: Environment, flags: Environment, start: Start) {
    this.#env = env;
    this.#flags = flags;
    this.start = start;
    this.#proxyConfig = readProxyConfig(env, start.readText);
    this.issues = [...this.#proxyConfig.issues];
  }

  /** Everything said about this proxy for the control plane: `proxyMetadata` and `ISTIO_META_*`, without that prefix. */
  get metadata(): Readonly<Record<string, string>> {
    return this.#proxyConfig.metadata;
  }

  /** Variables whose name begins with `prefix`, the rest of the name → value. */
  withPrefix(prefix: string): Readonly<Record<string, string>> {
    const entries = Object.entries(this.#env).flatMap(([name, value]) =>
      name.startsWith(prefix) && value !== undefined ? [[name.slice(prefix.length), value] as const] : [],
    );
    return Object.fromEntries(entries);
  }

  /** Set by anybody, even to nothing. */
  isSet(source: Source): boolean {
    return this.#find(source) !== undefined;
  }

  /** Adds a mistake that involves more than the form of one value. */
  refuse(source: Source, problem: string): void {
    this.issues.push({ setting: this.#find(source)?.name ?? nameOf(source), problem });
  }

  text(source: Source, fallback: string): string {
    return this.#find(source)?.text ?? fallback;
  }

  optional(source: Source): string | undefined {
    const text = this.#find(source)?.text;
    return text === '' ? undefined : text;
  }

  /** `cure`: what to set it to. */
  required(source: Source, cure: string): string {
    const text = this.optional(source);
    if (text === undefined) this.issues.push({ setting: nameOf(source), problem: `is required: ${cure}` });
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

  #find({ flag, meta, env, config }: Source): { name: string; text: string } | undefined {
    const { metadata, values } = this.#proxyConfig;
    return (
      found(flag, this.#flags, (name) => `--${name}`) ??
      found(meta, metadata, metaName) ??
      found(env, this.#env, (name) => name) ??
      found(config, values, configName)
    );
  }
}

function found<Key extends string>(
  key: Key | undefined,
  texts: Readonly<Partial<Record<Key, string>>>,
  nameOfKey: (key: Key) => string,
): { name: string; text: string } | undefined {
  const text = key === undefined ? undefined : texts[key];
  return key === undefined || text === undefined ? undefined : { name: nameOfKey(key), text };
}

function metaName(key: string): string {
  return `ISTIO_META_${key}`;
}

function configName(key: string): string {
  return `ProxyConfig ${key}`;
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

/** Every way to make the setting. */
function nameOf({ flag, meta, env, config }: Source): string {
  const names = [
    flag === undefined ? undefined : `--${flag}`,
    meta === undefined ? undefined : metaName(meta),
    env,
    config === undefined ? undefined : configName(config),
  ];
  return names.filter((name) => name !== undefined).join(' or ');
}
