/** Unix sockets that pass descriptors, as the rest of the agent sees them. */

/** `seqpacket` keeps messages apart; `stream` does not, and descriptors come with the first byte they were sent with. */
export type UnixSocketType = 'seqpacket' | 'stream';

/** As the kernel saw it when the connection was made. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Descriptors that came with a message: each is taken once, or closed when disposed. Close-on-exec. */
export interface PassedFds extends Disposable {
  /** How many came. */
  readonly count: number;
  /** The next one, in the order they were sent; from now on it is the caller's to close. `undefined`: none is left. */
  take(): number | undefined;
}

/** Disposing closes the descriptors that nobody took. */
export interface FdMessage extends Disposable {
  readonly data: Uint8Array;
  readonly fds: PassedFds;
  /** Something is missing: the rest of a packet, or descriptors for which this process has no room. `fds` are none then. */
  readonly lost: 'data' | 'descriptors' | undefined;
}

/** A connection. Disposing closes it; whoever waits on it then learns that it has ended. */
export interface UnixSocket extends Disposable {
  readonly peer: PeerCredentials;
  /**
   * The next message of up to `maxBytes`, for the caller to dispose; `undefined`: the other end, or this one, has closed. An
   * empty packet cannot be told from that. Waits for at least one turn of the loop, so that a peer that never pauses starves
   * nobody. One caller at a time. Rejects with `CV-SYS`, or with the reason of `signal`: an abort loses no message.
   */
  receive(maxBytes: number, signal?: AbortSignal): Promise<FdMessage | undefined>;
  /**
   * Resolves when the kernel has taken all of it; messages go out in the order they were given. At most 64 KiB and 253
   * descriptors, which stay the caller's and must be open until then. Rejects with `CV-SYS`.
   */
  send(data: Uint8Array, fds?: readonly number[]): Promise<void>;
}

export interface UnixListenOptions {
  readonly type: UnixSocketType;
  /** Who may connect: permission bits of the file. Default 0600. */
  readonly mode?: number;
  readonly backlog?: number;
}

/** Disposing stops listening and removes the file, unless another one lies there by now. Connections go on. */
export interface UnixListener extends Disposable {
  readonly path: string;
  /** The next connection; `undefined`: disposed. One caller at a time. Rejects with `CV-SYS`: out of descriptors, try later. */
  accept(signal?: AbortSignal): Promise<UnixSocket | undefined>;
}
