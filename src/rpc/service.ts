/** A gRPC service as plain functions: typed by its protobuf descriptor, told when nobody waits, paced by what the caller takes. */
import type { EventEmitter } from 'node:events';
import type {
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageShape,
} from '@bufbuild/protobuf';
import type { MethodDefinition, ServerDuplexStream, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { type sendUnaryData, status, type UntypedHandleCall } from '@grpc/grpc-js';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { parser, pathOf, serializer } from './method.ts';
import { rpcStatusOf } from './status.ts';

/** What a handler knows of its caller. */
export interface CallContext {
  /** First value of a header. */
  readonly header: (name: string) => string | undefined;
  /** Address and port of the caller. */
  readonly peer: string;
  /** DER of the client certificate, when there is one; it is signed by a client root of the server then. */
  readonly clientCertificate?: Uint8Array;
  /** Aborted once nobody waits for the answer. */
  readonly signal: AbortSignal;
}

/**
 * What answers one method. It refuses by throwing `rpcRefusal`; anything else thrown is answered as INTERNAL, without
 * its text, and logged. Of a stream, the next message is asked for when the transport has taken the one before.
 */
export type MethodHandler<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, context: CallContext) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, context: CallContext) => AsyncIterable<MessageShape<O>>
      : M extends DescMethodBiDiStreaming<infer I, infer O>
        ? (requests: AsyncIterable<MessageShape<I>>, context: CallContext) => AsyncIterable<MessageShape<O>>
        : never;

export type ServiceHandlers<S extends DescService> = {
  readonly [K in keyof S['method']]: MethodHandler<S['method'][K]>;
};

/** Ready to be served by `RpcServer`. */
export interface RpcService {
  readonly methods: readonly {
    readonly definition: MethodDefinition<unknown, unknown>;
    readonly handle: (log: Logger) => UntypedHandleCall;
  }[];
}

type ServerCall = Pick<
  ServerUnaryCall<unknown, unknown>,
  'metadata' | 'cancelled' | 'getPeer' | 'getPath' | 'getAuthContext'
> &
  EventEmitter;
type Writing = ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>;
/** What is left of the types behind the descriptor, which the library does not carry. */
type Unary = (request: unknown, context: CallContext) => Promise<unknown>;
type Streaming = (input: unknown, context: CallContext) => AsyncIterable<unknown>;

export function rpcService<S extends DescService>(service: S, handlers: ServiceHandlers<S>): RpcService {
  return {
    methods: service.methods.map((method) => {
      const handler: unknown = handlers[method.localName];
      return {
        definition: definitionOf(method),
        handle: (log) => {
          if (method.methodKind === 'unary') return unaryCall(handler as Unary, log);
          return method.methodKind === 'server_streaming'
            ? (call: ServerWritableStream<unknown, unknown>) =>
                void streamCall(call, call.request, handler as Streaming, log)
            : (call: ServerDuplexStream<unknown, unknown>) =>
                void streamCall(call, requestsOf(call), handler as Streaming, log);
        },
      };
    }),
  };
}

function definitionOf(method: DescService['methods'][number]): MethodDefinition<unknown, unknown> {
  const request = { serialize: serializer(method.input), parse: parser(method.input) };
  const answer = { serialize: serializer(method.output), parse: parser(method.output) };
  return {
    path: pathOf(method),
    requestStream: method.methodKind === 'bidi_streaming' || method.methodKind === 'client_streaming',
    responseStream: method.methodKind === 'bidi_streaming' || method.methodKind === 'server_streaming',
    requestSerialize: request.serialize as (message: unknown) => Buffer,
    requestDeserialize: request.parse,
    responseSerialize: answer.serialize as (message: unknown) => Buffer,
    responseDeserialize: answer.parse,
  };
}

function unaryCall(handler: Unary, log: Logger): UntypedHandleCall {
  return (call: ServerUnaryCall<unknown, unknown>, respond: sendUnaryData<unknown>) => {
    const context = contextOf(call);
    void (async () => {
      try {
        respond(null, await handler(call.request, context));
      } catch (error) {
        respond(refusalOf(error, call, log));
      }
    })();
  };
}

async function streamCall(call: Writing, input: unknown, handler: Streaming, log: Logger): Promise<void> {
  const context = contextOf(call);
  try {
    for await (const message of handler(input, context)) {
      await written(call, message, context.signal);
      if (context.signal.aborted) return;
    }
    call.end();
  } catch (error) {
    // The library sends what `error` carries as the status of the call.
    if (!context.signal.aborted) call.emit('error', Object.assign(new Error(), refusalOf(error, call, log)));
  }
}

/** Requests until the caller has sent its last one, or is gone. */
async function* requestsOf(call: ServerDuplexStream<unknown, unknown>): AsyncGenerator<unknown, void, undefined> {
  try {
    for await (const request of call.iterator({ destroyOnReturn: false })) yield request;
  } catch (error) {
    if (!call.cancelled) throw error;
  }
}

function written(call: Writing, message: unknown, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = (): void => {
    signal.removeEventListener('abort', done);
    resolve();
  };
  signal.addEventListener('abort', done, { once: true });
  call.write(message, done);
  return promise;
}

function contextOf(call: ServerCall): CallContext {
  const controller = new AbortController();
  call.on('cancelled', () => controller.abort());
  if (call.cancelled) controller.abort();
  const certificate = call.getAuthContext().sslPeerCertificate?.raw;
  return {
    header: (name) => {
      const [value] = call.metadata.get(name);
      return typeof value === 'string' ? value : undefined;
    },
    peer: call.getPeer(),
    ...(certificate !== undefined && { clientCertificate: certificate }),
    signal: controller.signal,
  };
}

function refusalOf(error: unknown, call: ServerCall, log: Logger): { readonly code: status; readonly details: string } {
  const rpcStatus = rpcStatusOf(error);
  if (rpcStatus !== undefined) return { code: status[rpcStatus], details: messageOf(error) };
  const stack = error instanceof Error ? error.stack : undefined;
  log.error?.('gRPC service failed', { path: call.getPath(), error: messageOf(error), stack });
  return { code: status.INTERNAL, details: 'internal error' };
}
