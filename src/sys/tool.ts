/** Runs a command-line tool inside a network namespace, bounded in time and output. No shell. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { MeshError, messageOf } from '../base/errors.ts';
import { inNetns } from './netns.ts';
import type { Netns, ToolResult } from './sys.ts';

export interface ToolLimits {
  readonly timeoutMs: number;
  /** Of stdout and stderr each. */
  readonly outputBytes: number;
}

export const TOOL_LIMITS: ToolLimits = { timeoutMs: 30_000, outputBytes: 1024 * 1024 };

/**
 * A tool that ran to its end resolves, whatever its exit code. Rejects with `CV-SYS` when it could not start, ran too
 * long or said too much; it is dead then.
 */
export async function runTool(
  netns: Netns | undefined,
  argv: readonly string[],
  input = '',
  limits: ToolLimits = TOOL_LIMITS,
): Promise<ToolResult> {
  const [file = '', ...args] = argv;
  const child = inNetns(netns, () => start(file, args));
  const { promise, resolve, reject } = Promise.withResolvers<ToolResult>();
  const fail = (problem: string): void => {
    child.kill('SIGKILL');
    reject(new MeshError('CV-SYS', `${file}: ${problem}`, { tool: file }));
  };
  child.on('error', (cause) => reject(notRun(file, cause)));
  // Not started: `error` follows. Out of descriptors there are not even pipes, whatever the types say.
  if (child.pid === undefined) return await promise;
  const timer = setTimeout(() => fail(`it did not finish in ${limits.timeoutMs / 1000} s`), limits.timeoutMs);
  const stdout = collect(child.stdout, limits.outputBytes, fail);
  const stderr = collect(child.stderr, limits.outputBytes, fail);
  child.on('close', (code) => resolve({ code: code ?? -1, stdout: stdout(), stderr: stderr() }));
  feed(child, input);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}

/** fork happens before spawn returns, on this thread: the child is born inside the namespace that the thread is in. */
function start(file: string, args: readonly string[]): ChildProcessWithoutNullStreams {
  try {
    return spawn(file, args, { stdio: 'pipe' });
  } catch (cause) {
    // Most errors come as an event; some, such as the want of memory, come at once.
    throw notRun(file, cause);
  }
}

function notRun(file: string, cause: unknown): MeshError {
  return new MeshError('CV-SYS', `${file} could not be run: ${messageOf(cause)}`, { tool: file }, { cause });
}

/** A tool may exit without reading; that is its own affair, and its exit code says so. */
function feed(child: ChildProcessWithoutNullStreams, input: string): void {
  child.stdin.on('error', () => {});
  child.stdin.end(input);
}

function collect(stream: NodeJS.ReadableStream, limitBytes: number, fail: (message: string) => void): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= limitBytes) chunks.push(chunk);
    else fail(`its output is over ${limitBytes} bytes`);
  });
  return () => Buffer.concat(chunks).toString();
}
