/**
 * Incoming octets of one session. TLS sockets are made to read into one buffer per thread and lend it for the length of
 * a callback: Node otherwise allocates for every TLS record, which costs 2.7 times the CPU time per GiB received.
 */
import type { Duplex } from 'node:stream';
import tls from 'node:tls';

export type Receive = (chunk: Uint8Array) => void;

/** What libuv asks for when Node lets it choose; a TLS record is at most a quarter of it. */
const SHARED_BYTES = 64 * 1024;

/** Decryption and callback are one synchronous step and never nest, so all sockets of a thread can share it. */
const shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
/** What was lent last: in bulk, the next record is as long. */
let lent: Uint8Array = shared;

/**
 * What TLS may run on for its octets to be lent. Inside a stream of another session its records are decrypted while that
 * session still reads from the buffer.
 */
const KERNEL_HANDLES: ReadonlySet<string | undefined> = new Set(['TCP', 'Pipe']);

/** Of `node:net`, not in its published types: what the `onread` option of a socket sets when it is made. */
type Internals = Record<symbol, unknown> & {
  readonly _handle?: { useUserBuffer?: (buffer: Uint8Array) => void; readonly _parent?: object | null } | null;
};

/**
 * Gives what `socket` reads to `receive`, from what it holds already on. True: chunks are lent, valid during the call
 * only; Node has no public way for a socket that exists, so when its insides change the answer is false, and all works.
 */
export function readFrom(socket: Duplex, receive: Receive): boolean {
  if (lend(socket, receive)) return true;
  socket.on('data', receive);
  return false;
}

function lend(socket: Duplex, receive: Receive): boolean {
  if (!(socket instanceof tls.TLSSocket)) return false;
  const internals = socket as unknown as Internals;
  const symbols = Object.getOwnPropertySymbols(socket);
  const bufferKey = symbols.find(({ description }) => description === 'kBuffer');
  const callbackKey = symbols.find(({ description }) => description === 'kBufferCb');
  const handle = internals._handle;
  if (bufferKey === undefined || callbackKey === undefined || typeof handle?.useUserBuffer !== 'function') return false;
  if (!KERNEL_HANDLES.has(handle._parent?.constructor.name)) return false;
  // What was read before is not ours to lend, but `receive` need not know.
  for (let chunk: unknown = socket.read(); chunk instanceof Uint8Array; chunk = socket.read()) receive(chunk);
  internals[bufferKey] = shared;
  internals[callbackKey] = (bytes: number): boolean => {
    if (lent.length !== bytes) lent = shared.subarray(0, bytes);
    receive(lent);
    return true;
  };
  handle.useUserBuffer(shared);
  socket.resume();
  return true;
}
