/**
 * Room for descriptors. The kernel doubles the table of a process when it is full, and in one with threads it holds up whoever
 * opens that descriptor until all CPUs have passed a quiescent state: 10 ms and more for every connection of an event loop.
 */
import type { MeshError } from '../base/errors.ts';
import { closeFd, F_DUPFD_CLOEXEC } from './duplicate.ts';
import { callError, libc } from './libc.ts';
import { AF_UNIX, SOCK_FLAGS, SOCK_STREAM } from './sockaddr.ts';

/** Half a MiB of the kernel's memory. */
const MOST = 65_536;
/** The kernel's own first step. */
const LEAST = 256;

/**
 * Makes the table as large as it will be, or as the limit of open files allows: for the start of a process, which waits once.
 * `fd`: any open descriptor.
 */
export function reserveDescriptors(fd: number): void {
  for (let count = MOST; count >= LEAST; count /= 2) {
    const highest = libc.fcntl(fd, F_DUPFD_CLOEXEC, 'int', count - 1);
    if (highest < 0) continue;
    closeFd(highest);
    return;
  }
}

/** Why this process can open nothing more; `undefined`: it can. */
export function descriptorShortage(): MeshError | undefined {
  const fd = libc.socket(AF_UNIX, SOCK_STREAM | SOCK_FLAGS, 0);
  if (fd < 0) return callError('CV-SYS', 'socket');
  closeFd(fd);
  return undefined;
}
