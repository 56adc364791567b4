/**
 * Connections that were accepted and have said nothing yet. Until the first bytes are there each costs a descriptor and the handle
 * that libuv accepted it with; a socket of Node's is made for who is worth it. Thousands of silent ones would otherwise fill the
 * young generation of the heap, whose collection stops the thread for everybody.
 *
 * The bytes stay with the kernel. Those that TLS is handed instead size its first buffer for as long as the connection lasts: with
 * a ClientHello of 1 KiB it reads 1 and 16 KiB in turn, without it 64 and 16.
 */
import net from 'node:net';
import { takeHandles } from './accepted-handles.ts';
import { libc } from './libc.ts';
import { hasPeerEnded } from './peer-end.ts';
import { SO_RCVLOWAT, trySetOption } from './sockopt.ts';
import { systemClock } from './system-clock.ts';

/** As Node writes them; `undefined` for what the kernel no longer knows. */
export interface SocketEnds {
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

export interface Arrival {
  readonly fd: number | undefined;
  readonly ends: SocketEnds;
  /**
   * Calls `settle` once: with true when it has received what `isEnough`, with false when no more will come; never after `close`.
   * Where Node's insides have changed any octet is enough.
   */
  hear(isEnough: (head: Uint8Array) => boolean, settle: (isThere: boolean) => void): void;
  /** Of what was heard: paused, half-open capable, for TLS, and its errors cannot end the process. The first call makes it. */
  socket(): net.Socket;
  /** Ends it, or the socket it has become. */
  close(): void;
  /** In a later turn, when its descriptor or that of its socket is closed. For one listener. */
  on(event: 'close', listener: () => void): void;
}

/** Node's handle of a TCP socket, not in its published types. */
interface TcpHandle {
  readonly fd: number;
  /** Called when something was read, or could not be. */
  onread: unknown;
  useUserBuffer(buffer: Uint8Array): void;
  readStart(): number;
  readStop(): number;
  getsockname(name: HandleName): number;
  getpeername(name: HandleName): number;
  close(then: () => void): void;
  [ARRIVAL]?: HandleArrival;
}

interface HandleName {
  address?: string;
  port?: number;
}

const METHODS = ['useUserBuffer', 'readStart', 'readStop', 'getsockname', 'getpeername', 'close'] as const;
const ARRIVAL = Symbol('arrival');
/** To read into: libuv finds no room, says so, and reads nothing. */
const NO_ROOM = Buffer.alloc(0);
/** MSG_PEEK | MSG_DONTWAIT. */
const PEEK_FLAGS = 0x42;
/** The longest TLS record in clear, with its header. */
const head = Buffer.alloc(16 * 1024 + 5);
/**
 * From a wake without anything new to the next look. The kernel goes on waking for it, where memory is short, the window is
 * nearly full, or a peer sent urgent data.
 */
const LOOK_AGAIN_MS = 100;

/**
 * Makes `server` tell of what it accepts before there is a socket. When a later Node has other insides it goes on making sockets,
 * for `socketArrival`.
 */
export function acceptArrivals(server: net.Server, onArrival: (arrival: Arrival) => void): void {
  const isUsable = (listener: TcpHandle): boolean => METHODS.every((method) => typeof listener[method] === 'function');
  takeHandles<TcpHandle>(server, (handle) => onArrival(new HandleArrival(handle)), isUsable);
}

class HandleArrival implements Arrival {
  readonly fd: number;
  readonly #handle: TcpHandle;
  #isEnough: ((head: Uint8Array) => boolean) | undefined;
  #settle: ((isThere: boolean) => void) | undefined;
  #knownBytes = 0;
  /** Until the next look, after a wake for nothing. */
  #pause: Disposable | undefined;
  #socket: net.Socket | undefined;
  #onClose = nothing;
  #isClosed = false;

  constructor(handle: TcpHandle) {
    this.#handle = handle;
    this.fd = handle.fd;
  }

  get ends(): SocketEnds {
    const local: HandleName = {};
    const remote: HandleName = {};
    this.#handle.getsockname(local);
    this.#handle.getpeername(remote);
    return {
      localAddress: local.address,
      localPort: local.port,
      remoteAddress: remote.address,
      remotePort: remote.port,
    };
  }

  hear(isEnough: (head: Uint8Array) => boolean, settle: (isThere: boolean) => void): void {
    const handle = this.#handle;
    this.#isEnough = isEnough;
    this.#settle = settle;
    handle[ARRIVAL] = this;
    handle.onread = onRead;
    handle.useUserBuffer(NO_ROOM);
    handle.readStart();
  }

  /** @internal `onRead` only. */
  look(): void {
    const { fd } = this;
    const bytes = libc.recv(fd, head, head.length, PEEK_FLAGS);
    const isThere = bytes > 0 && this.#isEnough?.(head.subarray(0, bytes)) === true;
    if (!isThere && bytes > this.#knownBytes) {
      this.#knownBytes = bytes;
      // Nothing is told of what is there already.
      trySetOption(fd, SO_RCVLOWAT, bytes + 1);
      return;
    }
    this.#handle.readStop();
    if (!isThere && bytes < head.length && !hasPeerEnded(fd)) {
      this.#pause = systemClock.after(LOOK_AGAIN_MS, () => this.#handle.readStart());
      return;
    }
    if (this.#knownBytes > 0) trySetOption(fd, SO_RCVLOWAT, 1);
    this.#settle?.(isThere);
  }

  socket(): net.Socket {
    this.#socket ??= this.#open();
    return this.#socket;
  }

  #open(): net.Socket {
    delete this.#handle[ARRIVAL];
    // How Node makes sockets of what it accepts; not in its published types.
    const handle: unknown = this.#handle;
    const options = { handle, allowHalfOpen: true, pauseOnCreate: true };
    return new net.Socket(options as net.SocketConstructorOpts).on('error', nothing).on('close', this.#onClose);
  }

  close(): void {
    this.#pause?.[Symbol.dispose]();
    if (this.#socket !== undefined) this.#socket.destroy();
    else if (!this.#isClosed) this.#handle.close(this.#onClose);
    this.#isClosed = true;
  }

  on(_event: 'close', listener: () => void): void {
    this.#onClose = listener;
  }
}

/** One function for all handles. */
function onRead(this: TcpHandle): void {
  this[ARRIVAL]?.look();
}

/** Of a socket that Node has made already. */
export function socketArrival(socket: net.Socket): Arrival {
  let isClosed = false;
  return {
    fd: undefined,
    ends: socket,
    hear: (_isEnough, settle) => {
      const tell = (): void => {
        socket.off('readable', tell).off('close', tell);
        if (!isClosed) settle(socket.readableLength > 0);
      };
      socket.on('readable', tell).on('close', tell);
    },
    socket: () => socket,
    close: () => {
      isClosed = true;
      socket.destroy();
    },
    on: (_event, listener) => void socket.on('close', listener),
  };
}

function nothing(): void {}
