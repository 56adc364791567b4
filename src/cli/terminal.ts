/** What a command sees of the terminal it runs in; tests bring their own. */
import { EXIT_FAILURE } from './exit-codes.ts';

const CTRL_C = '\u0003';
const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Standard output is a terminal: colours are welcome unless NO_COLOR is set (no-color.org). */
  readonly isTty: boolean;
  out(text: string): void;
  err(text: string): void;
  /** Lines that fit; absent when nobody knows. */
  readonly rows?: number | undefined;
  /** Single keys as they are pressed, and Ctrl-C when the process is to end, until disposed. Absent where nobody types. */
  readonly readKeys?: (onKey: (key: string) => void) => Disposable;
  /** Milliseconds since the Unix epoch. */
  nowMs(): number;
}

/** A reader that went away (`culvert … | head`) ends the process quietly. */
export function processTerminal(): Terminal {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    process.stderr.write(`culvert: cannot write to standard output: ${error.message}\n`);
    process.exit(EXIT_FAILURE);
  });
  return {
    env: process.env,
    isTty: process.stdout.isTTY,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    get rows() {
      // A terminal that was not told its size says 0.
      return process.stdout.rows > 0 ? process.stdout.rows : undefined;
    },
    ...(process.stdin.isTTY ? { readKeys } : {}),
    nowMs: () => performance.timeOrigin + performance.now(),
  };
}

function readKeys(onKey: (key: string) => void): Disposable {
  const { stdin } = process;
  const listener = (chunk: Buffer): void => {
    for (const key of chunk.toString('latin1')) onKey(key);
  };
  const onSignal = (): void => onKey(CTRL_C);
  for (const signal of END_SIGNALS) process.on(signal, onSignal);
  stdin.setRawMode(true);
  stdin.on('data', listener).resume();
  return {
    [Symbol.dispose]() {
      for (const signal of END_SIGNALS) process.off(signal, onSignal);
      stdin.off('data', listener).pause();
      stdin.setRawMode(false);
    },
  };
}

export function hasColour({ isTty, env }: Terminal): boolean {
  return isTty && (env['NO_COLOR'] ?? '') === '';
}
