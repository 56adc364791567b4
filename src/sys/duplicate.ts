/** A second descriptor of an open file or socket: what it stands for lives until all of them are closed. */
import { callError, libc } from './libc.ts';

export const F_DUPFD_CLOEXEC = 1030;

/** The caller's to close; close-on-exec. Throws `CV-SYS`. */
export function duplicate(fd: number): number {
  const copy = libc.fcntl(fd, F_DUPFD_CLOEXEC, 'int', 0);
  if (copy < 0) throw callError('CV-SYS', 'fcntl(F_DUPFD_CLOEXEC)');
  return copy;
}

export function closeFd(fd: number): void {
  libc.close(fd);
}
