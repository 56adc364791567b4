/** Opens network namespaces and runs code on this thread inside one (setns(2), ioctl_ns(2)). */
import { fstatSync, statfsSync, statSync, writeSync } from 'node:fs';
import { MeshError } from '../base/errors.ts';
import { callError, lastErrno, libc } from './libc.ts';
import type { Netns } from './sys.ts';

const CLONE_NEWNET = 0x4000_0000;
const NS_GET_NSTYPE = 0xb703;
const NSFS_MAGIC = 0x6e73_6673;
/** O_RDONLY | O_NONBLOCK | O_CLOEXEC: a FIFO put at the path must not hang the agent. */
const OPEN_FLAGS = 0o2_004_000;
const OWN_PATH = '/proc/thread-self/ns/net';
const STDERR = 2;

/** Namespace of the process; each thread has its own copy of this variable, and all the same descriptor. */
let ownFd: number | undefined;
let ownId: Netns['id'] | undefined;

/** Throws `CV-NETNS` when `path` cannot be opened or is something else than a network namespace. */
export function openNetns(path: string): Netns {
  const fd = libc.open(path, OPEN_FLAGS);
  if (fd < 0) throw callError('CV-NETNS', 'open of the network namespace', { path });
  return requireNetnsHandle(fd, path);
}

/** Takes a descriptor over, also when it throws `CV-NETNS` because it is something else. */
export function adoptNetns(fd: number): Netns {
  return requireNetnsHandle(fd, 'the descriptor received');
}

function requireNetnsHandle(fd: number, path: string): Netns {
  try {
    requireNetns(fd, path);
    return netnsHandle({ fd, path, id: idOf(fd) }, () => libc.close(fd));
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

function requireNetns(fd: number, path: string): void {
  const isNamespace = statfsSync(`/proc/self/fd/${fd}`).type === NSFS_MAGIC;
  if (isNamespace && libc.ioctl(fd, NS_GET_NSTYPE) === CLONE_NEWNET) return;
  throw new MeshError('CV-NETNS', `${path} is not a network namespace`, { path });
}

/** `release` is called once, when it is disposed; the descriptor is not used from then on. */
export function netnsHandle({ fd, path, id }: Pick<Netns, 'fd' | 'path' | 'id'>, release: () => void): Netns {
  let isOpen = true;
  return {
    // The number is soon another descriptor's, maybe another pod's namespace.
    get fd() {
      return isOpen ? fd : -1;
    },
    path,
    id,
    [Symbol.dispose]() {
      if (isOpen) release();
      isOpen = false;
    },
  };
}

/**
 * Runs `inside` on this thread with `netns` entered, and returns to the own namespace whatever happens.
 * `inside` must be synchronous and start no thread: a thread started there would stay in the pod for ever.
 */
export function inNetns<T>(netns: Netns | undefined, inside: () => T): T {
  if (netns === undefined || isOwn(netns)) return inside();
  const own = ownNetnsFd();
  if (libc.setns(netns.fd, CLONE_NEWNET) !== 0) throw callError('CV-NETNS', 'setns', { path: netns.path });
  try {
    return inside();
  } finally {
    if (libc.setns(own, CLONE_NEWNET) !== 0) abortStranded(netns.path);
  }
}

/** A new, empty namespace without a name, which lives as long as its handle. */
export function scratchNetns(): Netns {
  const own = ownNetnsFd();
  if (libc.unshare(CLONE_NEWNET) !== 0) throw callError('CV-NETNS', 'unshare');
  try {
    return openNetns(OWN_PATH);
  } finally {
    if (libc.setns(own, CLONE_NEWNET) !== 0) abortStranded('a scratch namespace');
  }
}

/** The way back: for worker threads, which are given it with `useOwnNetnsFd` because their own would stay open after them. */
export function ownNetnsFd(): number {
  if (ownFd !== undefined) return ownFd;
  // Opened once per process and never closed: without it there is no way back.
  const fd = libc.open(OWN_PATH, OPEN_FLAGS);
  if (fd < 0) throw callError('CV-NETNS', 'open of the own network namespace');
  ownFd = fd;
  return fd;
}

/** An agent that serves the pod it runs in needs no right to enter others. */
function isOwn({ id, fd }: Netns): boolean {
  ownId ??= idOf(ownNetnsFd());
  return fd >= 0 && ownId.inode === id.inode && ownId.device === id.device;
}

function idOf(fd: number): Netns['id'] {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return { device: dev, inode: ino };
}

/** In a new worker thread, before anything else: `fd` is what the main thread has as `ownNetnsFd`. */
export function useOwnNetnsFd(fd: number): void {
  const given = fstatSync(fd, { bigint: true });
  const actual = statSync(OWN_PATH, { bigint: true });
  if (given.dev !== actual.dev || given.ino !== actual.ino) {
    throw new MeshError('CV-NETNS', 'this thread was started in another network namespace than the main thread');
  }
  ownFd = fd;
}

/** A thread left in a pod would serve the node's ports and dial upstreams from inside that pod: no way to go on. */
function abortStranded(path: string): never {
  writeSync(STDERR, `culvert: setns back from ${path} failed with ${lastErrno()}; aborting the process\n`);
  libc.abort();
  // Not reached.
  process.abort();
}
