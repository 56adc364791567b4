/**
 * Waits for the first bytes of a socket and leaves them with the kernel. Bytes that TLS is handed instead size its first buffer
 * for as long as the connection lasts: with a ClientHello of 1 KiB it reads 1 and 16 KiB in turn, without it 64 and 16.
 */
import type net from 'node:net';
import { libc } from './libc.ts';
import { SO_RCVLOWAT, trySetOption } from './sockopt.ts';
import { socketFd } from './tcp.ts';

/** Node's handle of a socket, not in its published types. `onread` is called when something was read, or could not be. */
interface ReadHandle {
  onread: unknown;
  useUserBuffer(buffer: Uint8Array): void;
  readStart(): number;
  readStop(): number;
}

/** To read into: libuv finds no room, says so, and reads nothing. */
const NO_ROOM = Buffer.alloc(0);
/** MSG_PEEK | MSG_DONTWAIT. */
const PEEK_FLAGS = 0x42;
/** The longest TLS record in clear, with its header. */
const head = Buffer.alloc(16 * 1024 + 5);

/**
 * Resolves with true when a paused socket, which nobody but TLS will read, has received what `isEnough`; false when no more
 * will come. Where Node's insides have changed, the socket reads, keeps it for TLS, and any octet is enough.
 */
export async function received(socket: net.Socket, isEnough: (head: Uint8Array) => boolean): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const gone = (): void => resolve(false);
  const fd = socketFd(socket);
  const handle = readHandleOf(socket);
  if (fd === undefined || socket.destroyed) return false;
  using _wait = handle === undefined ? onFirst(socket, resolve) : onEnough({ fd, handle, isEnough, settle: resolve });
  socket.once('close', gone);
  try {
    return await promise;
  } finally {
    socket.off('close', gone);
  }
}

function readHandleOf(socket: net.Socket): ReadHandle | undefined {
  const { _handle: handle } = socket as unknown as { readonly _handle?: Partial<ReadHandle> | null };
  const isKnown = typeof handle?.useUserBuffer === 'function' && typeof handle.onread === 'function';
  return isKnown ? (handle as ReadHandle) : undefined;
}

interface Wait {
  readonly fd: number;
  readonly handle: ReadHandle;
  readonly isEnough: (head: Uint8Array) => boolean;
  readonly settle: (isThere: boolean) => void;
}

function onEnough({ fd, handle, isEnough, settle }: Wait): Disposable {
  const { onread } = handle;
  let known = 0;
  handle.useUserBuffer(NO_ROOM);
  handle.onread = () => {
    const bytes = libc.recv(fd, head, head.length, PEEK_FLAGS);
    const isThere = bytes > 0 && isEnough(head.subarray(0, bytes));
    if (isThere || bytes <= known) {
      handle.readStop();
      if (known > 0) trySetOption(fd, SO_RCVLOWAT, 1);
      settle(isThere);
      return;
    }
    known = bytes;
    // Nothing is told of what is there already.
    trySetOption(fd, SO_RCVLOWAT, known + 1);
  };
  handle.readStart();
  return { [Symbol.dispose]: () => void (handle.onread = onread) };
}

function onFirst(socket: net.Socket, then: (isThere: boolean) => void): Disposable {
  const look = (): void => then(socket.readableLength > 0);
  socket.on('readable', look);
  return { [Symbol.dispose]: () => void socket.off('readable', look) };
}
