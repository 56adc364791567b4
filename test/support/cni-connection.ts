/** One proxy connected to the test CNI agent: the server side of ZDS as istio-cni has it. */
import { type Clock, withDeadline } from '../../src/base/clock.ts';
import type { FdMessage, PeerCredentials, UnixSocket } from '../../src/sys/unix-contract.ts';
import { decodeAck, decodeHello, encodeRequest, MAX_ZDS_BYTES, type ZdsRequest } from '../../src/wire/zds.ts';

const DEADLINE_MS = 5_000;
const MAX_QUEUED = 100;
/** How long an idle connection is listened to: it must be silent. */
const SILENCE_MS = 10;

/** A request as bytes, so that wrong ones can be sent, with the descriptors that go with it. */
export interface ZdsPacket {
  readonly data: Uint8Array;
  readonly fds: readonly number[];
}

export function packet(request: ZdsRequest, ...fds: readonly number[]): ZdsPacket {
  return { data: encodeRequest(request), fds };
}

export interface CniConnectionOptions {
  /** Asked for once the proxy has said hello. */
  readonly snapshot: () => readonly ZdsPacket[];
  readonly clock: Clock;
  readonly idleMs: number;
}

interface Update extends PromiseWithResolvers<void> {
  readonly packet: ZdsPacket;
}

export class CniConnection {
  readonly peer: PeerCredentials;
  /** What the proxy said no to while it was told the snapshot. */
  readonly snapshotErrors: string[] = [];
  /** Resolves when the snapshot is acknowledged; rejects when the connection ends before. */
  readonly synced: Promise<void>;
  /** Resolves with why the connection ended. */
  readonly ended: Promise<string>;
  readonly #socket: UnixSocket;
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #queue: Update[] = [];
  readonly #synced = Promise.withResolvers<void>();
  #wake: (() => void) | undefined;
  #isOpen = true;

  constructor(socket: UnixSocket, { snapshot, clock, idleMs }: CniConnectionOptions) {
    this.#socket = socket;
    this.#clock = clock;
    this.#idleMs = idleMs;
    this.peer = socket.peer;
    this.synced = this.#synced.promise;
    this.synced.catch(() => {});
    this.ended = this.#serve(snapshot).catch((error: Error) => this.#end(error.message));
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Behind what is queued. Rejects as istio-cni words it: `got ack error: …`, an ack that is late, a broken pipe. */
  send(message: ZdsPacket): Promise<void> {
    if (!this.#isOpen) return Promise.reject(new Error('connection closed'));
    if (this.#queue.length >= MAX_QUEUED) return Promise.reject(new Error('queue of the connection is full'));
    const update = { ...Promise.withResolvers<void>(), packet: message };
    this.#queue.push(update);
    this.#wake?.();
    return update.promise;
  }

  /** As `send`, but that the proxy turns out to be gone is no failure. */
  async tell(message: ZdsPacket): Promise<void> {
    await this.send(message).catch((error: unknown) => {
      if (error instanceof AckError || error instanceof LateError) throw error;
    });
  }

  close(): void {
    this.#socket[Symbol.dispose]();
    this.#wake?.();
  }

  async #serve(snapshot: () => readonly ZdsPacket[]): Promise<string> {
    const version = decodeHello((await this.#receive('hello')).data);
    if (version !== 1) throw new Error(`hello of version ${version}`);
    for (const message of snapshot()) {
      await this.#exchange(message).catch((error: unknown) => this.#noteOrThrow(error));
    }
    await this.#exchange(packet({ kind: 'snapshot-sent' }));
    this.#synced.resolve();
    for (;;) await this.#turn();
  }

  /** istio-cni only logs what a proxy says no to in a snapshot. */
  #noteOrThrow(error: unknown): void {
    if (!(error instanceof AckError)) throw error;
    this.snapshotErrors.push(error.message);
  }

  async #turn(): Promise<void> {
    const update = this.#queue.shift();
    if (update === undefined) {
      await this.#news();
      return;
    }
    try {
      update.resolve(await this.#exchange(update.packet));
    } catch (error) {
      update.reject(error);
      if (!(error instanceof AckError || error instanceof LateError)) throw error;
    }
  }

  async #news(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const isIdle = await withDeadline(promise, this.#clock, this.#idleMs, () => new LateError('idle')).then(
      () => false,
      () => true,
    );
    if (isIdle) await this.#mustBeSilent();
    else if (this.#queue.length === 0) throw new Error('closed here');
  }

  /** Data or the end here means that the proxy is broken or gone. */
  async #mustBeSilent(): Promise<void> {
    const message = await this.#receiveWithin(SILENCE_MS).catch((error: unknown) => {
      if (error instanceof LateError) return undefined;
      throw error;
    });
    if (message === undefined) return;
    message[Symbol.dispose]();
    throw new Error('the proxy spoke without being asked');
  }

  async #exchange({ data, fds }: ZdsPacket): Promise<void> {
    await withDeadline(this.#socket.send(data, fds), this.#clock, DEADLINE_MS, () => new Error('write timed out'));
    const error = decodeAck((await this.#receive('ack')).data);
    if (error !== undefined) throw new AckError(`got ack error: ${error}`);
  }

  async #receive(what: string): Promise<FdMessage> {
    using message = await this.#receiveWithin(DEADLINE_MS);
    if (message.fds.count > 0 || message.lost !== undefined) throw new Error(`${what} is no plain packet`);
    return message;
  }

  async #receiveWithin(limitMs: number): Promise<FdMessage> {
    const late = new AbortController();
    using _deadline = this.#clock.after(limitMs, () => late.abort(new LateError(`nothing in ${limitMs} ms`)));
    const message = await this.#socket.receive(MAX_ZDS_BYTES, late.signal);
    if (message === undefined) throw new Error('the proxy closed the connection');
    return message;
  }

  #end(reason: string): string {
    this.#isOpen = false;
    this.#socket[Symbol.dispose]();
    this.#synced.reject(new Error(reason));
    for (const update of this.#queue.splice(0)) update.reject(new Error(reason));
    return reason;
  }
}

class AckError extends Error {}

/** The connection stays: the next answer may even be the one that was waited for. */
export class LateError extends Error {}
