/** Connections of which one half has ended, and numbered records go on in the other. */
import { once } from 'node:events';
import type net from 'node:net';
import { echo, RecordReader, type RecordStream, recordOf, WINDOW } from './numbered.ts';

/** One end has ended its half, and the other one streams records to it. */
export class HalfClosedStream implements RecordStream {
  readonly received = new RecordReader();
  readonly #done: net.Socket;
  readonly #going: net.Socket;
  readonly #timer: NodeJS.Timeout;
  readonly #over = Promise.withResolvers<void>();
  #sent = 0;
  #isStopping = false;

  private constructor(done: net.Socket, going: net.Socket, intervalMs: number) {
    this.#done = done;
    this.#going = going;
    for (const socket of [done, going]) socket.on('error', (error) => this.#fail(error.message));
    done.on('data', (chunk: Buffer) => this.received.take(chunk)).on('end', () => this.#ended());
    done.on('close', () => this.#ended()).resume();
    going.on('data', () => this.#fail('bytes behind an end'));
    this.#timer = setInterval(() => this.#send(), intervalMs);
    this.#send();
  }

  /** Begins once the end of `done` is heard at `going`. */
  static async start(done: net.Socket, going: net.Socket, intervalMs: number): Promise<HalfClosedStream> {
    done.end();
    going.resume();
    await once(going, 'end');
    return new HalfClosedStream(done, going, intervalMs);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    clearInterval(this.#timer);
    this.#going.end();
    await this.#over.promise;
  }

  abort(): void {
    this.#isStopping = true;
    clearInterval(this.#timer);
    for (const socket of [this.#done, this.#going]) socket.destroy();
  }

  #send(): void {
    if (this.#sent >= this.received.records + WINDOW) return;
    this.#going.write(recordOf(this.#sent));
    this.#sent += 1;
  }

  #ended(): void {
    if (!this.#isStopping) this.#fail('ended early');
    else if (this.received.records < this.#sent)
      this.#fail(`ended after ${this.received.records} of ${this.#sent} records`);
    this.#over.resolve();
  }

  #fail(what: string): void {
    this.received.fail(what);
    clearInterval(this.#timer);
    this.#over.resolve();
  }
}

/** First byte of a connection that is not an echo; its number follows. No record begins so. */
const MARK = 0xff;

/** Applications that know of each accepted connection whose it is: by a number that its client says first. */
export class HalfClosed {
  readonly #intervalMs: number;
  readonly #accepted: PromiseWithResolvers<net.Socket>[] = [];

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  serve(socket: net.Socket): void {
    socket.once('data', (first: Buffer) => {
      const isOurs = first[0] === MARK && first.length === 3;
      if (isOurs) return this.#accepted[first.readUInt16BE(1)]?.resolve(socket);
      echo(socket);
      socket.unshift(first);
    });
    // A client may end with its first words.
    socket.on('error', () => {});
  }

  async start(client: net.Socket, whoEnds: 'client' | 'server'): Promise<HalfClosedStream> {
    const accepted = Promise.withResolvers<net.Socket>();
    const mark = Buffer.of(MARK, 0, 0);
    mark.writeUInt16BE(this.#accepted.push(accepted) - 1, 1);
    client.write(mark);
    const server = await accepted.promise;
    const [done, going] = whoEnds === 'client' ? [client, server] : [server, client];
    return await HalfClosedStream.start(done, going, this.#intervalMs);
  }
}
