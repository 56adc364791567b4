/** Unix sockets that pass descriptors (unix(7)), as promises: connect, listen, accept, send, receive. */
import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { MeshError } from '../base/errors.ts';
import { receiveMessage, sendMessage } from './fd-message.ts';
import { FdWatch } from './fd-watch.ts';
import { callError, errnoError, lastErrno, libc } from './libc.ts';
import { AF_UNIX, SOCK_FLAGS, SOCK_STREAM } from './sockaddr.ts';
import { SO_PEERCRED, tryGetBytes } from './sockopt.ts';
import type {
  FdMessage,
  PeerCredentials,
  UnixListener,
  UnixListenOptions,
  UnixSocket,
  UnixSocketType,
} from './unix-contract.ts';

const TYPE = { stream: SOCK_STREAM, seqpacket: 5 } as const satisfies Record<UnixSocketType, number>;
/** sun_path with its terminating zero. */
const PATH_BYTES = 108;
const DEFAULT_BACKLOG = 128;

/** struct ucred: pid, uid, gid. */
const UCRED_BYTES = 12;

/** Throws `CV-SYS` with the errno: nobody listens, no such path, no right, or too many wait already (EAGAIN). */
export function connectUnix(path: string, type: UnixSocketType): UnixSocket {
  const fd = withSocket(type, (made) => {
    const address = sockaddr(path);
    if (libc.connect(made, address, address.length) !== 0) throw callError('CV-SYS', 'connect', { path });
  });
  return new Connection(fd, type);
}

/** A socket file left at `path` is removed first; anything else there is not. Throws `CV-BIND`. */
export function listenUnix(path: string, options: UnixListenOptions): UnixListener {
  const { type, mode = 0o600, backlog = DEFAULT_BACKLOG } = options;
  removeSocketFile(path);
  const fd = withSocket(type, (made) => {
    const address = sockaddr(path);
    if (libc.bind(made, address, address.length) !== 0) throw callError('CV-BIND', 'bind', { path });
    // Before it listens nobody can connect, so there is no moment with other rights.
    chmodSync(path, mode);
    if (libc.listen(made, backlog) !== 0) throw callError('CV-BIND', 'listen', { path });
  });
  return new Listener(fd, path, type);
}

class Connection implements UnixSocket {
  readonly peer: PeerCredentials;
  readonly #fd: number;
  readonly #type: UnixSocketType;
  readonly #watch: FdWatch;
  /** Sends go out in the order they were asked for. */
  #lastSend: Promise<void> = Promise.resolve();
  #isOpen = true;

  /** Takes the descriptor over, also when it throws. */
  constructor(fd: number, type: UnixSocketType) {
    this.#fd = fd;
    this.#type = type;
    try {
      this.peer = peerCredentials(fd);
      this.#watch = new FdWatch(fd);
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  }

  async receive(maxBytes: number, signal?: AbortSignal): Promise<FdMessage | undefined> {
    while (this.#isOpen) {
      await this.#watch.wait('readable', signal);
      if (!this.#isOpen) return undefined;
      const received = receiveMessage(this.#fd, maxBytes);
      if (received === 'end') return undefined;
      if (received !== 'later') return received;
    }
    return undefined;
  }

  send(data: Uint8Array, fds: readonly number[] = []): Promise<void> {
    const sent = this.#lastSend.then(() => this.#send(data, fds));
    this.#lastSend = sent.catch(() => {});
    return sent;
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#watch[Symbol.dispose]();
    libc.close(this.#fd);
  }

  async #send(data: Uint8Array, fds: readonly number[]): Promise<void> {
    let left = data;
    let leftFds = fds;
    while (this.#isOpen) {
      const sent = sendMessage(this.#fd, left, leftFds);
      if (sent === 'later') {
        await this.#watch.wait('writable');
        continue;
      }
      left = left.subarray(sent);
      leftFds = [];
      if (left.length === 0 || this.#type === 'seqpacket') return;
    }
    throw new MeshError('CV-SYS', 'the unix socket was closed before all was sent', { bytes: left.length });
  }
}

class Listener implements UnixListener {
  readonly path: string;
  readonly #fd: number;
  readonly #type: UnixSocketType;
  readonly #inode: bigint | undefined;
  readonly #watch: FdWatch;
  #isOpen = true;

  /** Takes the descriptor over, also when it throws. */
  constructor(fd: number, path: string, type: UnixSocketType) {
    this.#fd = fd;
    this.path = path;
    this.#type = type;
    this.#inode = inodeOf(path);
    try {
      this.#watch = new FdWatch(fd);
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  }

  async accept(signal?: AbortSignal): Promise<UnixSocket | undefined> {
    while (this.#isOpen) {
      await this.#watch.wait('readable', signal);
      if (!this.#isOpen) return undefined;
      const fd = libc.accept4(this.#fd, null, null, SOCK_FLAGS);
      if (fd >= 0) return new Connection(fd, this.#type);
      const errno = lastErrno();
      if (errno !== 'EAGAIN' && errno !== 'ECONNABORTED') throw errnoError('CV-SYS', 'accept4', errno);
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#watch[Symbol.dispose]();
    libc.close(this.#fd);
    // Whoever came after us has put a file of their own there.
    if (inodeOf(this.path) === this.#inode) rmSync(this.path, { force: true });
  }
}

/** The descriptor, when `prepare` went well. */
function withSocket(type: UnixSocketType, prepare: (fd: number) => void): number {
  const fd = libc.socket(AF_UNIX, TYPE[type] | SOCK_FLAGS, 0);
  if (fd < 0) throw callError('CV-SYS', 'socket(AF_UNIX)');
  try {
    prepare(fd);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** struct sockaddr_un: family, path, zero. */
function sockaddr(path: string): Uint8Array {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length >= PATH_BYTES || bytes.includes(0)) {
    throw new MeshError('CV-SYS', `the path of a unix socket has 1 to ${PATH_BYTES - 1} bytes: ${path}`, { path });
  }
  const address = new Uint8Array(2 + bytes.length + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  return address;
}

function removeSocketFile(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) rmSync(path);
}

function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

function peerCredentials(fd: number): PeerCredentials {
  const found = tryGetBytes(fd, SO_PEERCRED, UCRED_BYTES);
  if (found === undefined) throw callError('CV-SYS', 'getsockopt(SO_PEERCRED)');
  const view = new DataView(found.buffer);
  return { pid: view.getInt32(0, true), uid: view.getUint32(4, true), gid: view.getUint32(8, true) };
}
