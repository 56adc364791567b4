/** One agent per node: an advisory lock on a file of the run directory (flock(2)), which the kernel drops when we die. */
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { MeshError, messageOf } from '../base/errors.ts';
import { callError, lastErrno, libc } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_FILE = 'agent.lock';

/** Held until disposed or until the process ends, however it ends. */
export interface RunLock extends Disposable {
  readonly path: string;
  /** What holds the lock: whoever has a copy of it holds the same lock. */
  readonly fd: number;
}

/** Throws `CV-AGENT-RUNNING` with the pid of the holder, or `CV-SYS` when `runDir` cannot be used. */
export function takeRunLock(runDir: string): RunLock {
  const path = join(runDir, LOCK_FILE);
  const fd = openLockFile(runDir, path);
  try {
    if (libc.flock(fd, LOCK_EX | LOCK_NB) !== 0) throw refusedBy(path);
    sign(fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return lockHandle(fd, path);
}

/** Takes over a lock that another process has passed on: `fd` is a copy of its own. */
export function adoptRunLock(fd: number, runDir: string): RunLock {
  sign(fd);
  return lockHandle(fd, join(runDir, LOCK_FILE));
}

/** For people only: a full disk must not keep an agent from its node. */
function sign(fd: number): void {
  try {
    ftruncateSync(fd);
    writeSync(fd, `${process.pid}\n`, 0);
  } catch {
    // Then the lock says that it is held, and not by whom.
  }
}

function openLockFile(runDir: string, path: string): number {
  try {
    // Not recursive: a mistyped parent should be reported, and Node loops for ever where a file system makes no directories.
    if (!existsSync(runDir)) mkdirSync(runDir, { mode: 0o755 });
    return openSync(path, 'a+', 0o600);
  } catch (error) {
    throw new MeshError(
      'CV-SYS',
      `the run directory cannot be used: ${messageOf(error)}`,
      { runDir },
      { cause: error },
    );
  }
}

function refusedBy(path: string): MeshError {
  if (lastErrno() !== 'EAGAIN') return callError('CV-SYS', 'flock', { path });
  const pid = Number(readFileSync(path, 'utf8'));
  const holder = pid > 0 ? `the agent with pid ${pid}` : `an agent that holds ${path}`;
  return new MeshError('CV-AGENT-RUNNING', `${holder} already serves this node`, { pid, path });
}

function lockHandle(fd: number, path: string): RunLock {
  let isHeld = true;
  return {
    path,
    fd,
    // The file stays: removing it would let two agents hold locks on two files of the same name.
    [Symbol.dispose]() {
      if (isHeld) closeSync(fd);
      isHeld = false;
    },
  };
}
