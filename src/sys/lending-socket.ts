/**
 * Sockets that read into one buffer per thread and lend it for the length of a callback. Node otherwise allocates 64 KiB
 * for each read and leaves it to the garbage collector: measured at three times the CPU time per GiB read.
 */
import net from 'node:net';
import { takeHandles } from './accepted-handles.ts';

/** Most that is lent at once: with the header of an HTTP/2 frame it fills eight TLS records, a page of `tunnel/pages.ts`. */
export const LENT_BYTES = 128 * 1024 - 9;
/** Written and not yet taken by the kernel before `write` says to wait. */
const HIGH_WATER_BYTES = 128 * 1024;

/** Reads are synchronous, from the system call to the end of the callback, so all sockets of a thread can share it. */
const shared = Buffer.allocUnsafeSlow(LENT_BYTES);
/** What was lent last: in bulk, the next read is as long. */
let lent: Uint8Array = shared;

/** Who reads a lending socket. */
interface Borrower {
  /** `chunk` is valid during the call only. */
  take(chunk: Uint8Array): void;
}

const BORROWER = Symbol('borrower');
/** `undefined`: it lends, and nobody reads yet. */
type LendingSocket = net.Socket & { [BORROWER]?: Borrower | undefined };

/** How Node makes a socket of a handle or descriptor; `handle` and `manualStart` are not in its published types. */
type Origin =
  | { readonly handle: unknown; readonly pauseOnCreate: true }
  | { readonly fd: number; readonly manualStart: true };

/** One function for all sockets, thousands of which idle: Node calls it on the socket that has read. */
function lend(this: LendingSocket, bytes: number): boolean {
  if (lent.length !== bytes) lent = shared.subarray(0, bytes);
  this[BORROWER]?.take(lent);
  return true;
}

/** A half-open capable socket that is not reading. Say who reads it with `lendTo` before it is resumed. */
export function lendingSocket(origin: Origin): net.Socket {
  const options = {
    ...origin,
    allowHalfOpen: true,
    writableHighWaterMark: HIGH_WATER_BYTES,
    onread: { buffer: shared, callback: lend },
  };
  const socket: LendingSocket = new net.Socket(options as net.SocketConstructorOpts);
  socket[BORROWER] = undefined;
  return socket;
}

/** From now on what `socket` reads goes to `borrower`. False: the socket does not lend. */
export function lendTo(socket: LendingSocket, borrower: Borrower): boolean {
  if (!(BORROWER in socket)) return false;
  socket[BORROWER] = borrower;
  return true;
}

/** Makes `server` accept lending sockets; with a later Node of other insides ordinary ones, which `lendTo` tells. */
export function acceptLending(server: net.Server, onConnection: (socket: net.Socket) => void): void {
  takeHandles(server, (handle) => onConnection(lendingSocket({ handle, pauseOnCreate: true })));
}
