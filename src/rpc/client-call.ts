/** One gRPC call as bytes: messages out in order, messages in one at a time, one end. Nothing is read ahead of its reader. */
import { type ChannelInterface, type Metadata, type StatusObject, status } from '@grpc/grpc-js';
import type { MeshError } from '../base/errors.ts';
import { type RpcStatus, statusName } from './status.ts';

type GrpcCall = ReturnType<ChannelInterface['createCall']>;

/** Turns the status of a failed call into an error. */
export type FailureOf = (rpcStatus: RpcStatus, text: string) => MeshError;

interface Waiter {
  readonly resolve: (message: Buffer | undefined) => void;
  readonly reject: (error: MeshError) => void;
}

export class ClientCall {
  readonly #call: GrpcCall;
  readonly #failureOf: FailureOf;
  readonly #ended = Promise.withResolvers<void>();
  #status: StatusObject | undefined;
  #waiter: Waiter | undefined;
  #lastWrite: Promise<void> = Promise.resolve();

  constructor(call: GrpcCall, metadata: Metadata, failureOf: FailureOf) {
    this.#call = call;
    this.#failureOf = failureOf;
    call.start(metadata, {
      onReceiveMetadata: () => undefined,
      onReceiveMessage: (message: Buffer) => this.#settle((waiter) => waiter.resolve(message)),
      onReceiveStatus: (received) => this.#end(received),
    });
  }

  /** Settles with the end of the call, however it ended. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /**
   * Resolves once the transport has taken the message, or the call has ended; how it ended is told by `read`. The
   * caller waits before it makes the next one: that is the back-pressure.
   */
  send(message: Buffer): Promise<void> {
    const previous = this.#lastWrite;
    this.#lastWrite = previous.then(() => this.#write(message));
    return this.#lastWrite;
  }

  /** No more messages from us, after those already given to `send`. */
  halfClose(): void {
    void this.#lastWrite.then(() => {
      if (this.#status === undefined) this.#call.halfClose();
    });
  }

  /** The next message; `undefined` when the call ended well. One read at a time. */
  read(): Promise<Buffer | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>();
    this.#waiter = { resolve, reject };
    if (this.#status === undefined) this.#call.startRead();
    else this.#settleWith(this.#status);
    return promise;
  }

  /** Ends the call from our side. `read` then rejects with this status and text. */
  cancel(rpcStatus: RpcStatus, text: string): void {
    this.#call.cancelWithStatus(status[rpcStatus], text);
  }

  #write(message: Buffer): Promise<void> {
    if (this.#status !== undefined) return Promise.resolve();
    const written = new Promise<void>((resolve) => {
      this.#call.sendMessageWithContext({ callback: () => resolve() }, message);
    });
    return Promise.race([written, this.#ended.promise]);
  }

  #end(received: StatusObject): void {
    this.#status ??= received;
    this.#ended.resolve();
    this.#settleWith(this.#status);
  }

  #settleWith({ code, details }: StatusObject): void {
    this.#settle((waiter) => {
      if (code === status.OK) waiter.resolve(undefined);
      else waiter.reject(this.#failureOf(statusName(code), details));
    });
  }

  #settle(outcome: (waiter: Waiter) => void): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    if (waiter !== undefined) outcome(waiter);
  }
}
