/** Which log lines are written: `target=level` directives, as `RUST_LOG` and `/logging` spell them. */
import { MeshError } from '../base/errors.ts';

export const LOG_LEVELS = ['off', 'error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Every target a line can have; they name the part of the agent that speaks. */
export const LOG_SCOPES = [
  'access',
  'admin',
  'agent',
  'capture',
  'dns',
  'hand-over',
  'identity',
  'proxy',
  'readiness',
  'state',
  'stats',
  'xds',
] as const;
export type LogScope = (typeof LOG_SCOPES)[number];

/** Target → level; the empty target is the default. */
export type LogFilter = ReadonlyMap<string, LogLevel>;

/** ztunnel always prepends this directive, and tools that print the filter expect to read it back. */
const ALWAYS = 'hickory_server::server=off';
const MODULE_PREFIX = 'ztunnel::';
/** Targets that ztunnel writes without its module prefix. */
const BARE_SCOPES: ReadonlySet<string> = new Set(['access', 'dns']);

/** Modules of ztunnel by whose names operators and runbooks ask for parts that are called differently here. */
const MODULES_OF: Readonly<Partial<Record<string, readonly string[]>>> = {
  capture: ['inpod'],
  identity: ['tls', 'cert_fetcher'],
  state: ['rbac'],
};

/** What a filter may hold; a longer one is a mistake or an attack on the admin port. */
const MAX_DIRECTIVES = 64;

/** `access` → `access`, `proxy` → `ztunnel::proxy`: the full target of a scope, as JSON lines print it. */
export function fullTarget(scope: string): string {
  return BARE_SCOPES.has(scope) ? scope : `${MODULE_PREFIX}${scope}`;
}

/** The filter at start: `text` is `RUST_LOG`; empty = `info`. */
export function startFilter(text: string | undefined): LogFilter {
  const directives = text === undefined || text.trim() === '' ? 'info' : text;
  return extendFilter(parseDirectives(ALWAYS), directives);
}

/** `filter` with the directives of `text` added; a later one for the same target wins. */
export function extendFilter(filter: LogFilter, text: string): LogFilter {
  const merged = new Map([...filter, ...parseDirectives(text)]);
  if (merged.size > MAX_DIRECTIVES) {
    throw new MeshError('CV-CONFIG', `a log filter holds at most ${MAX_DIRECTIVES} directives`);
  }
  return merged;
}

/** Longest target first, the default last; the form that `/logging` prints. */
export function formatFilter(filter: LogFilter): string {
  const directives = [...filter].sort(([a], [b]) => b.length - a.length || (a < b ? -1 : 1));
  return directives.map(([target, level]) => (target === '' ? level : `${target}=${level}`)).join(',');
}

/**
 * The level of `scope`: the most specific directive whose target is a module-path prefix of it. Nothing matches = off. One for a
 * module within it, such as `proxy::outbound`, makes all of it say as much, never less.
 */
export function levelOf(filter: LogFilter, scope: string): LogLevel {
  let best = '';
  let level = filter.get('') ?? 'off';
  let within: LogLevel = 'off';
  for (const [target, candidate] of filter) {
    const bare = target.startsWith(MODULE_PREFIX) ? target.slice(MODULE_PREFIX.length) : target;
    if (isWithin(bare, scope)) within = louder(within, candidate);
    if (target === '' || bare.length < best.length || !covers(target, bare, scope)) continue;
    best = bare;
    level = candidate;
  }
  return louder(level, within);
}

export function isLogLevel(text: string): text is LogLevel {
  return LOG_LEVELS.some((level) => level === text);
}

function covers(target: string, bare: string, scope: string): boolean {
  if (target === 'ztunnel') return !BARE_SCOPES.has(scope);
  return scope === bare || scope.startsWith(`${bare}::`) || MODULES_OF[scope]?.includes(bare) === true;
}

function isWithin(bare: string, scope: string): boolean {
  return [scope, ...(MODULES_OF[scope] ?? [])].some((module) => bare.startsWith(`${module}::`));
}

function louder(a: LogLevel, b: LogLevel): LogLevel {
  return LOG_LEVELS.indexOf(a) > LOG_LEVELS.indexOf(b) ? a : b;
}

function parseDirectives(text: string): Map<string, LogLevel> {
  const clauses = text.split(',').map((clause) => clause.trim());
  return new Map(clauses.filter((clause) => clause !== '').map(parseDirective));
}

/** `level`, `target`, `target=level` or `target:level`. A target alone means everything of it, as in `RUST_LOG`. */
function parseDirective(clause: string): [string, LogLevel] {
  const split = /^([\w-]+(?:::[\w-]+)*)(?:[=:]([A-Za-z]+))?$/.exec(clause);
  const [, first = '', second] = split ?? [];
  if (split === null) throw new MeshError('CV-CONFIG', `log filter: cannot read "${clause}"`, { clause });
  const word = (second ?? first).toLowerCase();
  if (isLogLevel(word)) return second === undefined ? ['', word] : [first, word];
  if (second === undefined) return [first, 'trace'];
  throw new MeshError('CV-CONFIG', `log filter: "${second}" is not one of ${LOG_LEVELS.join(', ')}`, { clause });
}
