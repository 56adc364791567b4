/** The logger every layer receives. Methods of disabled levels are `undefined`: `log.debug?.('…', { … })` costs nothing. */

import type { ReasonCode } from './reasons.ts';

export type LogValue = string | number | boolean | undefined;
/** In every line `reason` is a code, which operators look up, and `error` is the text. */
export type LogFields = Readonly<Record<string, LogValue>> & {
  readonly reason?: ReasonCode | undefined;
  readonly code?: never;
};
type LogMethod = (message: string, fields?: LogFields) => void;

export interface Logger {
  readonly error?: LogMethod | undefined;
  readonly warn?: LogMethod | undefined;
  readonly info?: LogMethod | undefined;
  readonly debug?: LogMethod | undefined;
  readonly trace?: LogMethod | undefined;
}

/** For tests and tools that want silence. */
export const silentLogger: Logger = {};
