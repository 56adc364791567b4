/** The logger every layer receives. Methods of disabled levels are `undefined`: `log.debug?.('…', { … })` costs nothing. */

export type LogValue = string | number | boolean | undefined;
export type LogFields = Readonly<Record<string, LogValue>>;
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
