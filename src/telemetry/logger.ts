/** The agent's logger: scopes with their own level, text or JSON lines, levels changeable while it runs. */
import { pino } from 'pino';
import type { Clock } from '../base/clock.ts';
import type { LogFields, Logger } from '../base/log.ts';
import {
  extendFilter,
  formatFilter,
  fullTarget,
  LOG_LEVELS,
  type LogFilter,
  type LogScope,
  levelOf,
  startFilter,
} from './log-filter.ts';
import type { LogSink } from './log-sink.ts';
import { cut, textLine } from './log-text.ts';
import { Timestamps } from './timestamp.ts';

export interface LoggerOptions {
  readonly sink: LogSink;
  readonly clock: Clock;
  readonly format: 'text' | 'json';
  /** `RUST_LOG`; absent = `info`. Throws `CV-CONFIG` when it cannot be read. */
  readonly filter?: string | undefined;
}

/** The filter as `/logging` sees it. */
export interface LogControl {
  /** The filter in force, most specific directive first. */
  current(): string;
  /** Back to the filter of the start (`isReset`), then `directives` on top. Throws `CV-CONFIG`; then nothing changed. */
  change(directives: string, isReset: boolean): void;
}

type Method = NonNullable<Logger['info']>;
type Write = (level: Level, scope: string, message: string, fields: LogFields) => void;
type Level = 'error' | 'warn' | 'info' | 'debug' | 'trace';

const NO_FIELDS: LogFields = {};

export class RootLogger implements LogControl {
  readonly #sink: LogSink;
  readonly #write: Write;
  readonly #startFilter: LogFilter;
  readonly #scopes = new Map<LogScope, ScopedLogger>();
  #filter: LogFilter;

  constructor(options: LoggerOptions) {
    this.#sink = options.sink;
    this.#startFilter = startFilter(options.filter);
    this.#filter = this.#startFilter;
    this.#write = options.format === 'json' ? jsonWriter(options) : textWriter(options);
  }

  /** The logger of one scope; the same object for the same name, so level changes reach whoever holds it. */
  scope(name: LogScope): Logger {
    const known = this.#scopes.get(name);
    if (known !== undefined) return known;
    const scoped = new ScopedLogger(name, this.#write);
    scoped.setLevel(LOG_LEVELS.indexOf(levelOf(this.#filter, name)));
    this.#scopes.set(name, scoped);
    return scoped;
  }

  current(): string {
    return formatFilter(this.#filter);
  }

  change(directives: string, isReset: boolean): void {
    this.#setFilter(extendFilter(isReset ? this.#startFilter : this.#filter, directives));
    this.scope('admin').info?.(`new log filter is ${this.current()}`);
  }

  /** Lines of another thread's logger, finished. */
  writeLines(lines: string): void {
    this.#sink.write(lines);
  }

  /** Takes over the filter of another thread's logger, as its `current` says it. */
  follow(filter: string): void {
    this.#setFilter(startFilter(filter));
  }

  #setFilter(filter: LogFilter): void {
    this.#filter = filter;
    for (const [name, scoped] of this.#scopes) scoped.setLevel(LOG_LEVELS.indexOf(levelOf(filter, name)));
  }
}

export function rootLogger(options: LoggerOptions): RootLogger {
  return new RootLogger(options);
}

/** Methods of disabled levels are `undefined`, so that their arguments are never built. */
class ScopedLogger implements Logger {
  error: Method | undefined;
  warn: Method | undefined;
  info: Method | undefined;
  debug: Method | undefined;
  trace: Method | undefined;
  readonly #methods: Readonly<Record<Level, Method>>;

  constructor(scope: string, write: Write) {
    const method =
      (level: Level): Method =>
      (message, fields) =>
        write(level, scope, message, fields ?? NO_FIELDS);
    this.#methods = {
      error: method('error'),
      warn: method('warn'),
      info: method('info'),
      debug: method('debug'),
      trace: method('trace'),
    };
  }

  /** `rank` is the index in `LOG_LEVELS`: 0 = off, 5 = trace. */
  setLevel(rank: number): void {
    this.error = rank >= 1 ? this.#methods.error : undefined;
    this.warn = rank >= 2 ? this.#methods.warn : undefined;
    this.info = rank >= 3 ? this.#methods.info : undefined;
    this.debug = rank >= 4 ? this.#methods.debug : undefined;
    this.trace = rank >= 5 ? this.#methods.trace : undefined;
  }
}

function textWriter({ sink, clock }: LoggerOptions): Write {
  const stamps = new Timestamps(clock);
  return (level, scope, message, fields) => sink.write(textLine({ level, time: stamps.now(), scope, message, fields }));
}

/** pino writes JSON: `level`, `time`, `scope`, `message`, then the fields in their order. */
function jsonWriter({ sink, clock }: LoggerOptions): Write {
  const stamps = new Timestamps(clock);
  const root = pino(
    {
      level: 'trace',
      base: {},
      timestamp: () => `,"time":"${stamps.now()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    sink,
  );
  return (level, scope, message, fields) => root[level]({ scope: fullTarget(scope), message, ...jsonFields(fields) });
}

function jsonFields(fields: LogFields): LogFields {
  const entries = Object.entries(fields).filter(([key]) => !key.startsWith('log.'));
  return Object.fromEntries(entries.map(([key, value]) => [key, typeof value === 'string' ? cut(value) : value]));
}
