/** One log event as a tab separated text line. Whatever a peer put into it stays one line. */
import type { LogFields, LogValue } from '../base/log.ts';

/** Longest string value in a line, UTF-16 units; a peer must not be able to fill the log. */
const MAX_VALUE_CHARS = 2_048;

const PLAIN = /^[ !#-[\]-~]*$/;
const NEEDS_ESCAPE = /["\\]|[^\P{C}]|(?! )\p{Z}/gu;
/** Values of address fields are printed bare, but only when they are addresses: a peer may have chosen the text. */
const ADDRESS_KEY = /(?:^|[._])addr(?:ess)?$/;
const ADDRESS_TEXT = /^[A-Za-z0-9._:[\]/-]+$/;

export interface LogEvent {
  readonly level: string;
  /** RFC 3339, UTC, six fractional digits. */
  readonly time: string;
  readonly scope: string;
  readonly message: string;
  readonly fields: LogFields;
}

/** `TIME \t level \t scope \t MESSAGE \t k=v k=v \n`; the tab after the message is always there. */
export function textLine({ level, time, scope, message, fields }: LogEvent): string {
  return `${time}\t${level}\t${scope}\t${escapeMessage(message)}\t${textFields(fields)}\n`;
}

/** Cuts `text` to what one field may hold. */
export function cut(text: string): string {
  return text.length <= MAX_VALUE_CHARS ? text : `${text.slice(0, MAX_VALUE_CHARS)}…`;
}

/** Quoted, with the escapes of Rust's debug format: `\"`, `\\`, `\n`, `\u{1b}`. */
function quote(text: string): string {
  const short = cut(text);
  return PLAIN.test(short) ? `"${short}"` : `"${short.replace(NEEDS_ESCAPE, escapeCharacter)}"`;
}

function textFields(fields: LogFields): string {
  let line = '';
  for (const key in fields) {
    const value = fields[key];
    if (value === undefined || key.startsWith('log.')) continue;
    line += line === '' ? `${key}=${textValue(key, value)}` : ` ${key}=${textValue(key, value)}`;
  }
  return line;
}

function textValue(key: string, value: Exclude<LogValue, undefined>): string {
  if (typeof value !== 'string') return String(value);
  return ADDRESS_KEY.test(key) && ADDRESS_TEXT.test(value) ? cut(value) : quote(value);
}

/** Messages are constants, but a constant may be built from an error text: control characters never reach the line. */
function escapeMessage(message: string): string {
  return PLAIN.test(message) ? message : message.replace(/[^\P{C}]|(?! )\p{Z}/gu, escapeCharacter);
}

const NAMED: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\0': '\\0',
};

function escapeCharacter(character: string): string {
  return NAMED[character] ?? `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
