/** Exit codes of `culvert`, the last two from sysexits.h. */

export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** EX_UNAVAILABLE: the agent cannot be reached. */
export const EXIT_UNAVAILABLE = 69;
/** EX_CONFIG: a setting is wrong; trying again will not help. */
export const EXIT_CONFIG = 78;

/** Ends a command with a message for a person and the code for a script. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: number;

  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}
