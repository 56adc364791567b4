/** Whether more can come from the other end of a socket: asked of the kernel, and nothing is read for it. */
import { libc } from './libc.ts';

/** POLLRDHUP of poll(2). */
const ASKED = 0x2000;
/** POLLRDHUP | POLLNVAL | POLLHUP | POLLERR: it has ended its half or reset the connection, or there is none. */
const ENDED = 0x2038;

/** struct pollfd: the descriptor, then 16 bits of what is asked and 16 of what is so. */
const question = new Int32Array(2);

/** What it sent before may still be there to read. */
export function hasPeerEnded(fd: number): boolean {
  question[0] = fd;
  question[1] = ASKED;
  libc.poll(question, 1, 0);
  return (((question[1] ?? 0) >>> 16) & ENDED) !== 0;
}
