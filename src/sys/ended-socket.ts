/** A socket on which both halves have ended, for whoever is to go on with one that has closed in order: it reads its end. */
import { libc } from './libc.ts';
import { AF_UNIX, SOCK_FLAGS, SOCK_STREAM } from './sockaddr.ts';

/** The caller's to close; `undefined`: out of descriptors. */
export function endedSocket(): number | undefined {
  const fds = new Int32Array(2);
  if (libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_FLAGS, 0, fds) !== 0) return undefined;
  const [fd = -1, other = -1] = fds;
  libc.close(other);
  return fd;
}
