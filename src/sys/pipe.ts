/**
 * Pipes that carry bytes from one socket to another inside the kernel: splice(2). Pages change hands, nothing is copied and
 * nothing comes into this process. Empty pipes are kept for the next who needs one.
 */
import type net from 'node:net';
import { lastErrno, libc } from './libc.ts';
import { parked } from './parked.ts';

/** O_NONBLOCK | O_CLOEXEC. */
const PIPE_FLAGS = 0o2_004_000;
const F_SETPIPE_SZ = 1031;
/** SPLICE_F_MOVE | SPLICE_F_NONBLOCK. */
const SPLICE_FLAGS = 3;
/** Asked for; the kernel gives 64 KiB to a user who has many (`pipe-user-pages-soft`), which works too. */
const CAPACITY_BYTES = 256 * 1024;
/** In use at once on a thread: 64 MiB of the kernel's memory, all of it held for readers who have stopped. */
const MAX_IN_USE = 256;
const MAX_SPARE = 8;

/** What did not move for another reason than that there is nothing, or no room. */
export interface SpliceFailure {
  readonly errno: string;
}

const spare: Pipe[] = [];
let inUse = 0;

export class Pipe {
  readonly #readFd: number;
  readonly #writeFd: number;
  readonly #owners: readonly net.Socket[];
  #heldBytes = 0;

  private constructor(readFd: number, writeFd: number) {
    this.#readFd = readFd;
    this.#writeFd = writeFd;
    this.#owners = [parked(readFd), parked(writeFd)];
  }

  /** An empty one, to be given back; `undefined`: too many are in use, or no descriptor is left. */
  static take(): Pipe | undefined {
    if (inUse >= MAX_IN_USE) return undefined;
    const pipe = spare.pop() ?? Pipe.#open();
    if (pipe !== undefined) inUse += 1;
    return pipe;
  }

  static #open(): Pipe | undefined {
    const fds = new Int32Array(2);
    if (libc.pipe2(fds, PIPE_FLAGS) !== 0) return undefined;
    const [readFd = -1, writeFd = -1] = fds;
    libc.fcntl(writeFd, F_SETPIPE_SZ, 'int', CAPACITY_BYTES);
    return new Pipe(readFd, writeFd);
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Bytes that came in; 0: none is there now, or none will come any more, which only a read can tell apart. */
  fill(from: number): number | SpliceFailure {
    const moved = spliced(from, this.#writeFd, CAPACITY_BYTES);
    if (typeof moved === 'number') this.#heldBytes += moved;
    return moved;
  }

  /** Bytes that went out; fewer than are held: there is no room now. */
  drain(to: number): number | SpliceFailure {
    const moved = spliced(this.#readFd, to, this.#heldBytes);
    if (typeof moved === 'number') this.#heldBytes -= moved;
    return moved;
  }

  /** Takes bytes out into `target`; how many. */
  read(target: Uint8Array): number {
    const taken = libc.read(this.#readFd, target, target.length);
    if (taken > 0) this.#heldBytes -= taken;
    return Math.max(0, taken);
  }

  /** What is still in it is lost. Not to be used any more. */
  giveBack(): void {
    inUse -= 1;
    if (this.#heldBytes === 0 && spare.length < MAX_SPARE) {
      spare.push(this);
      return;
    }
    for (const owner of this.#owners) owner.destroy();
  }
}

/** koffi gives a `long` as a number as long as it is a safe one. */
function spliced(from: number, to: number, length: number): number | SpliceFailure {
  const moved = libc.splice(from, null, to, null, length, SPLICE_FLAGS);
  if (moved >= 0) return moved;
  const errno = lastErrno();
  return errno === 'EAGAIN' || errno === 'EINTR' ? 0 : { errno };
}
