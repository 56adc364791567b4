/**
 * Sockets that read into one buffer per thread and lend it for the length of a callback. Node otherwise allocates 64 KiB
 * for each read and leaves it to the garbage collector: measured at three times the CPU time per GiB read.
 */
import net from 'node:net';

/** Most that is lent at once. Twice what libuv asks for when Node lets it choose: a page of `tunnel/pages.ts`. */
export const LENT_BYTES = 128 * 1024;
/** Written and not yet taken by the kernel before `write` says to wait. */
const HIGH_WATER_BYTES = 128 * 1024;

/** Reads are synchronous, from the system call to the end of the callback, so all sockets of a thread can share it. */
const shared = Buffer.allocUnsafeSlow(LENT_BYTES);

type Receive = (chunk: Uint8Array) => void;

const receivers = new WeakMap<net.Socket, { receive: Receive }>();

/** How Node makes a socket of a handle or descriptor; `handle` and `manualStart` are not in its published types. */
type Origin =
  | { readonly handle: unknown; readonly pauseOnCreate: true }
  | { readonly fd: number; readonly manualStart: true };

/** A half-open capable socket that is not reading. Give it a receiver with `lendTo` before it is resumed. */
export function lendingSocket(origin: Origin): net.Socket {
  const receiver: { receive: Receive } = { receive: ignore };
  const options = {
    ...origin,
    allowHalfOpen: true,
    writableHighWaterMark: HIGH_WATER_BYTES,
    onread: {
      buffer: shared,
      callback: (bytes: number, buffer: Uint8Array): boolean => {
        receiver.receive(buffer.subarray(0, bytes));
        return true;
      },
    },
  };
  const socket = new net.Socket(options as net.SocketConstructorOpts);
  receivers.set(socket, receiver);
  return socket;
}

/** From now on what `socket` reads goes to `receive`, valid during the call only. False: the socket does not lend. */
export function lendTo(socket: net.Socket, receive: Receive): boolean {
  const receiver = receivers.get(socket);
  if (receiver === undefined) return false;
  receiver.receive = receive;
  return true;
}

/**
 * Makes `server` accept lending sockets. Node offers no way to choose how an accepted socket reads but to take the accepted
 * handle over; when a later Node has no such handle the server goes on accepting ordinary sockets, which `lendTo` tells.
 */
export function acceptLending(server: net.Server, onConnection: (socket: net.Socket) => void): void {
  const { _handle: listener } = server as unknown as { _handle?: { onconnection?: unknown } | null };
  if (typeof listener?.onconnection !== 'function') return;
  listener.onconnection = (error: number, handle: unknown): void => {
    if (error === 0 || error === undefined) onConnection(lendingSocket({ handle, pauseOnCreate: true }));
    else server.emit('error', new Error(`accept failed: ${error}`));
  };
}

function ignore(): void {}
