/** A `ByteStream` as a Duplex of node:stream, so that TLS can run inside a stream of a tunnel. */
import { Duplex } from 'node:stream';
import { toMeshError } from '../base/errors.ts';
import type { ByteStream } from './byte-stream.ts';

/**
 * Opens `stream`, which belongs to the Duplex from now on. Halves end on their own, a reset is an error on both sides, and
 * what one side does not take is waited for by the other: nothing is held here beyond the marks of node:stream.
 */
export function duplexOf(stream: ByteStream): Duplex {
  /** A write that the stream took but wants flushed before the next. */
  let written: (() => void) | undefined;
  let hasPeerEnded = false;
  let haveWeEnded = false;
  const duplex = new Duplex({
    allowHalfOpen: true,
    read: () => stream.resume(),
    write: (chunk: Buffer, _encoding, done) => {
      if (stream.write(chunk)) done();
      else written = done;
    },
    final: (done) => {
      haveWeEnded = true;
      stream.end();
      done();
    },
    destroy: (error, done) => {
      stream.destroy(error === null ? undefined : toMeshError(error, 'CV-IO'));
      done(error);
    },
  });
  stream.open({
    onData: (chunk) => {
      if (!duplex.push(stream.isLending ? Buffer.from(chunk) : chunk)) stream.pause();
    },
    onEnd: () => {
      hasPeerEnded = true;
      duplex.push(null);
    },
    onDrain: () => {
      const done = written;
      written = undefined;
      done?.();
    },
    onClose: (error) => {
      // After both ends the Duplex closes by itself, once everything is read.
      if (error !== undefined || !hasPeerEnded || !haveWeEnded) duplex.destroy(error);
    },
  });
  return duplex;
}
