/** What a command sees of the terminal it runs in; tests bring their own. */

export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Standard output is a terminal: colours are welcome unless NO_COLOR is set (no-color.org). */
  readonly isTty: boolean;
  out(text: string): void;
  err(text: string): void;
  /** Milliseconds since the Unix epoch. */
  nowMs(): number;
}

/** A reader that went away (`culvert … | head`) ends the process quietly. */
export function processTerminal(): Terminal {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  return {
    env: process.env,
    isTty: process.stdout.isTTY,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    nowMs: () => performance.timeOrigin + performance.now(),
  };
}

export function hasColour({ isTty, env }: Terminal): boolean {
  return isTty && (env['NO_COLOR'] ?? '') === '';
}
