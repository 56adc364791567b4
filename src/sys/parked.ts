/** Descriptors that go with the thread that has them, however it ends: the process, whose they are, outlives a worker. */
import net from 'node:net';

/** Owns `fd`, as a socket of Node's that nobody reads; `destroy` closes it at once. */
export function parked(fd: number): net.Socket {
  // Half of the options are not in Node's published types.
  const options = { fd, readable: false, writable: false, manualStart: true };
  return new net.Socket(options as net.SocketConstructorOpts).on('error', nothing).unref();
}

function nothing(): void {}
