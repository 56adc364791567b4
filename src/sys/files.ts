/** Files the agent depends on: bounded reads, atomic private writes, and a watch that survives renames and ConfigMap swaps. */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { hasCode, messageOf } from '../base/errors.ts';

/** Entries of a watched directory that are looked at; more are an operator's mistake, and ignored. */
const MAX_ENTRIES = 10_000;

const MORE_BYTES = 4_096;

/** Whole content. Throws a plain `Error` when it is no regular file or over `maxBytes`; the caller knows which code that is. */
export function readBounded(path: string, maxBytes: number): Buffer {
  // Of a FIFO without a writer any other open waits for ever, and the whole thread with it.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error(`${path} is not a regular file`);
    // One more than it should have, to see its end; more again when it has grown, or has no size as files of /proc.
    let buffer = Buffer.allocUnsafe(Math.min(stat.size, maxBytes) + 1);
    let filled = 0;
    for (let read = -1; read !== 0; filled += read) {
      if (filled > maxBytes) throw new Error(`${path} is over ${maxBytes} bytes`);
      if (filled === buffer.length) buffer = Buffer.concat([buffer], Math.min(2 * filled + MORE_BYTES, maxBytes + 1));
      read = readSync(fd, buffer, filled, buffer.length - filled, null);
    }
    return buffer.subarray(0, filled);
  } finally {
    closeSync(fd);
  }
}

/** Replaces `path` in one step, on disk before it returns: a reader sees the old or the new content, a crash leaves one of them. */
export function writeAtomically(path: string, content: Uint8Array | string, mode = 0o600): void {
  const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}`);
  try {
    writeFileSync(temporary, content, { mode, flag: 'wx', flush: true });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncDirectory(dirname(path));
}

/**
 * Makes a directory and those above it that are not there. Node's own recursive `mkdir` loops for ever where a file system
 * makes no directories, as in /proc.
 */
export function makeDirectory(path: string, mode = 0o700): void {
  if (isDirectory(path)) return;
  const parent = dirname(path);
  if (parent !== path) makeDirectory(parent, mode);
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Another process was faster.
    if (!hasCode(error, 'EEXIST') || !isDirectory(path)) throw error;
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

export interface WatchOptions {
  readonly clock: Clock;
  /** Quiet time after the last event before the path is looked at. */
  readonly debounceMs?: number;
  /** Without any event the path is looked at this often: inotify does not cross symlinks and some mounts have none. */
  readonly pollMs?: number;
  /** The file, or any entry of the directory, is not what it was. Also when it appeared or vanished. */
  readonly onChange: () => void;
}

const DEBOUNCE_MS = 100;
const POLL_MS = 10_000;

/** Watches a file or the entries of a directory until disposed. The path need not exist yet. */
export function watchPath(path: string, options: WatchOptions): Disposable {
  const { clock, onChange, debounceMs = DEBOUNCE_MS, pollMs = POLL_MS } = options;
  let known = fingerprint(path);
  let debounce: Disposable | undefined;
  let poll: Disposable | undefined;
  let watchers: readonly Disposable[] = [];

  const look = (): void => {
    debounce = undefined;
    const current = fingerprint(path);
    if (current === known) return;
    known = current;
    onChange();
  };
  const onEvent = (): void => {
    debounce?.[Symbol.dispose]();
    debounce = clock.after(debounceMs, look);
  };
  const again = (): void => {
    // Watches die with the directory they were set on, so they are set anew each round.
    for (const watcher of watchers) watcher[Symbol.dispose]();
    watchers = [dirname(path), path].flatMap((place) => watchPlace(place, onEvent));
    poll = clock.after(pollMs, again);
    look();
  };
  again();

  return {
    [Symbol.dispose]() {
      debounce?.[Symbol.dispose]();
      poll?.[Symbol.dispose]();
      for (const watcher of watchers) watcher[Symbol.dispose]();
    },
  };
}

/** Nothing when the place does not exist or cannot be watched: polling is left. */
function watchPlace(place: string, onEvent: () => void): Disposable[] {
  try {
    const watcher = watch(place, { persistent: false }, onEvent);
    watcher.on('error', () => watcher.close());
    return [{ [Symbol.dispose]: () => watcher.close() }];
  } catch {
    return [];
  }
}

/** Changes whenever the content may have: what a symlink chain ends in, its inode, size and times; for a directory, of each entry. */
function fingerprint(path: string): string {
  const own = stamp(path);
  if (!own.startsWith('d')) return own;
  try {
    const names = readdirSync(path).sort().slice(0, MAX_ENTRIES);
    return names.map((name) => `${name}=${stamp(join(path, name))}`).join('\n');
  } catch {
    return '';
  }
}

function stamp(path: string): string {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stats === undefined) return '';
    const kind = stats.isDirectory() ? 'd' : 'f';
    return `${kind}${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}`;
  } catch (error) {
    // A circle of symlinks, a mount that is gone, no right: a state as any other, and who reads the path says which.
    return messageOf(error);
  }
}
