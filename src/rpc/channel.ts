/** A gRPC channel to one server: trust roots and token are read anew for each call, errors name the server and the cause. */
import type { SecureContextOptions } from 'node:tls';
import type {
  DescMessage,
  DescMethodBiDiStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageShape,
} from '@bufbuild/protobuf';
import { Channel, ChannelCredentials, type ChannelOptions, connectivityState, Metadata } from '@grpc/grpc-js';
import { type Clock, deadline } from '../base/clock.ts';
import { type MeshError, messageOf } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import { formatRpcAddress, type RpcAddress } from './address.ts';
import { ClientCall } from './client-call.ts';
import type { FileAccess } from './file-access.ts';
import { asBuffer, parser, pathOf, serializer } from './method.ts';
import { OwnedCredentials } from './owned-credentials.ts';
import { callFailure, type RpcStatus } from './status.ts';
import { TlsChannelCredentials } from './tls-credentials.ts';
import { readToken, type TokenSource } from './token.ts';
import { readTrustRoots, type TrustRoots } from './trust-roots.ts';

export interface RpcChannelOptions {
  readonly address: RpcAddress;
  /** Who is there, for errors: "control plane". */
  readonly name: string;
  /** Code of every error of this channel. */
  readonly failureCode: ReasonCode;
  /** Ignored on a unix socket. */
  readonly tls: {
    readonly roots: TrustRoots;
    /** A name the server may prove instead of the host of the address. */
    readonly altHostname?: string;
    /** Versions, suites and groups; default: TLS 1.3 as node:tls has it. */
    readonly context?: SecureContextOptions;
  };
  readonly credentials: RpcCredentials;
  /** Default 5 s for TCP, and as much for TLS. */
  readonly connectTimeoutMs?: number;
  /** Default: a PING after 30 s without one, lost after 10 s. */
  readonly keepalive?: { readonly intervalMs: number; readonly timeoutMs: number };
}

/** Headers of every call. */
export interface RpcCredentials {
  readonly token: TokenSource;
  /** Sent with the token and only with it. */
  readonly clusterId?: string;
  readonly headers: ReadonlyMap<string, string>;
}

export interface RpcChannelDeps {
  readonly clock: Clock;
  readonly files: FileAccess;
}

/** A call whose messages go both ways, as bytes: the caller decides how, and when, to encode and decode them. */
export interface DuplexCall {
  /** Resolves once the message is on its way or the call has ended. */
  send(message: Uint8Array): Promise<void>;
  /** The next answer; `undefined` at a clean end; rejects with a `MeshError` at any other. */
  read(): Promise<Buffer | undefined>;
  cancel(): void;
}

const CONNECT_TIMEOUT_MS = 5_000;
const KEEPALIVE = { intervalMs: 30_000, timeoutMs: 10_000 } as const;
/** A first push of a large mesh is one message. */
const MAX_RECEIVE_BYTES = 200 * 1024 * 1024;
/** Per connection and per stream: large pushes must not wait for a round trip every 64 KiB. */
const FLOW_WINDOW_BYTES = 1024 * 1024;
/** Never reached: no deadline but ours. */
const NO_DEADLINE = Infinity;

export class RpcChannel implements Disposable {
  /** Name and address, as errors show it. */
  readonly peer: string;
  readonly #options: RpcChannelOptions;
  readonly #deps: RpcChannelDeps;
  #channel: Channel | undefined;
  /** Roots that `#channel` was made with. */
  #rootsText = '';
  #isDisposed = false;

  constructor(options: RpcChannelOptions, deps: RpcChannelDeps) {
    this.#options = options;
    this.#deps = deps;
    this.peer = `${options.name} ${formatRpcAddress(options.address)}`;
  }

  /** One request, one answer. Rejects with `failureCode` after `timeoutMs`, when `signal` aborts, or as the server says. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<MessageShape<O>> {
    const call = this.#start(pathOf(method), signal);
    const late = `no answer within ${timeoutMs} ms`;
    using _deadline = deadline(this.#deps.clock, timeoutMs, () => call.cancel('DEADLINE_EXCEEDED', late));
    void call.send(serializer(method.input)(request));
    call.halfClose();
    const answer = await call.read();
    if (answer === undefined) throw this.#failure('INTERNAL', 'the server ended the call without an answer');
    await call.read();
    return this.#parse(method.output, answer);
  }

  /** One request, any number of answers. Ends when the server ends the call well; leaving the loop cancels it. */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const call = this.#start(pathOf(method), signal);
    try {
      void call.send(serializer(method.input)(request));
      call.halfClose();
      for (let answer = await call.read(); answer !== undefined; answer = await call.read()) {
        yield this.#parse(method.output, answer);
      }
    } finally {
      call.cancel('CANCELLED', 'the reader left');
    }
  }

  /** Opens a stream; `signal` ends it. Failures to connect come out of `read`. */
  duplex(method: DescMethodBiDiStreaming, signal: AbortSignal): DuplexCall {
    const call = this.#start(pathOf(method), signal);
    return {
      send: (message) => call.send(asBuffer(message)),
      read: () => call.read(),
      cancel: () => call.cancel('CANCELLED', 'cancelled'),
    };
  }

  /** Refuses new calls. Calls in flight are ended by their signals. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#channel?.close();
    this.#channel = undefined;
  }

  #start(path: string, signal: AbortSignal): ClientCall {
    if (this.#isDisposed) throw this.#failure('CANCELLED', 'the channel is closed');
    const { connectTimeoutMs = CONNECT_TIMEOUT_MS } = this.#options;
    const { channel, metadata } = this.#locally(() => ({ metadata: this.#metadata(), channel: this.#connection() }));
    const grpcCall = channel.createCall(path, NO_DEADLINE, null, null, null);
    const call = new ClientCall(grpcCall, metadata, (rpcStatus, text) => this.#failure(rpcStatus, text));
    const late = deadline(this.#deps.clock, connectTimeoutMs, () => {
      call.cancel('UNAVAILABLE', `no connection within ${connectTimeoutMs} ms`);
      this.#giveUp(channel);
    });
    onConnected(channel, () => late[Symbol.dispose]());
    const abort = (): void => call.cancel('CANCELLED', messageOf(signal.reason));
    signal.addEventListener('abort', abort, { once: true });
    void call.ended.then(() => {
      late[Symbol.dispose]();
      signal.removeEventListener('abort', abort);
    });
    if (signal.aborted) abort();
    return call;
  }

  /** The channel in use, or a new one when the roots have changed or the last attempt to connect failed. */
  #connection(): Channel {
    const { address, tls } = this.#options;
    const roots = address.kind === 'unix' ? [] : readTrustRoots(tls.roots, this.#deps.files);
    const rootsText = roots.join('\n');
    const isUsable = this.#channel !== undefined && this.#rootsText === rootsText && !hasFailed(this.#channel);
    if (this.#channel !== undefined && isUsable) return this.#channel;
    this.#channel?.close();
    this.#channel = new Channel(
      targetOf(address),
      new OwnedCredentials(this.#channelCredentials(roots)),
      this.#channelOptions(),
    );
    this.#rootsText = rootsText;
    return this.#channel;
  }

  #channelCredentials(rootsPem: readonly string[]): ChannelCredentials {
    const { address, tls, connectTimeoutMs: timeoutMs = CONNECT_TIMEOUT_MS } = this.#options;
    if (address.kind === 'unix') return ChannelCredentials.createInsecure();
    const { altHostname, context } = tls;
    const { host } = address;
    const options = { host, rootsPem, context, timeoutMs, ...(altHostname !== undefined && { altHostname }) };
    return new TlsChannelCredentials(options, this.#deps.clock);
  }

  #channelOptions(): ChannelOptions {
    const { intervalMs, timeoutMs } = this.#options.keepalive ?? KEEPALIVE;
    return {
      'grpc.keepalive_time_ms': intervalMs,
      'grpc.keepalive_timeout_ms': timeoutMs,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.max_receive_message_length': MAX_RECEIVE_BYTES,
      'grpc-node.flow_control_window': FLOW_WINDOW_BYTES,
      // Roots differ between channels, and proxies, TXT records and retries are none of the server's or operator's wishes.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.enable_retries': 0,
      'grpc.enable_channelz': 0,
    };
  }

  #metadata(): Metadata {
    const { token: source, clusterId, headers } = this.#options.credentials;
    const metadata = new Metadata();
    for (const [name, value] of headers) metadata.set(name, value);
    const token = readToken(source, this.#deps.files);
    if (token === undefined) return metadata;
    metadata.set('authorization', `Bearer ${token}`);
    if (clusterId !== undefined) metadata.set('clusterid', clusterId);
    return metadata;
  }

  #giveUp(channel: Channel): void {
    channel.close();
    if (this.#channel === channel) this.#channel = undefined;
  }

  /** Files and settings on this side: `UNAUTHENTICATED` would blame the server. */
  #locally<T>(prepare: () => T): T {
    try {
      return prepare();
    } catch (error) {
      throw this.#failure('FAILED_PRECONDITION', messageOf(error));
    }
  }

  #parse<O extends DescMessage>(schema: O, answer: Buffer): MessageShape<O> {
    try {
      return parser(schema)(answer);
    } catch (error) {
      throw this.#failure('INTERNAL', `the answer cannot be decoded: ${messageOf(error)}`);
    }
  }

  #failure(rpcStatus: RpcStatus, text: string): MeshError {
    const isConnected = rpcStatus !== 'FAILED_PRECONDITION' && !NO_CONNECTION.test(text);
    return callFailure(this.#options.failureCode, this.peer, { rpcStatus, text: connectText(text), isConnected });
  }
}

/** grpc-js tells a connection that never was from one that broke by these words only; the last are ours. */
const NO_CONNECTION = /^(No connection established|Name resolution failed|no connection within)/;

/** Once, when `channel` is connected for the first time; later it may look idle while its streams go on. */
function onConnected(channel: Channel, done: () => void): void {
  const state = channel.getConnectivityState(false);
  if (state === connectivityState.READY) done();
  else if (state !== connectivityState.SHUTDOWN) {
    channel.watchConnectivityState(state, NO_DEADLINE, () => onConnected(channel, done));
  }
}

function hasFailed(channel: Channel): boolean {
  const state = channel.getConnectivityState(false);
  return state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN;
}

function targetOf(address: RpcAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return `dns:${formatRpcAddress(address).slice('https://'.length)}`;
}

/** grpc-js wraps the reason of a failed connection; the reason alone is what an operator needs. */
function connectText(text: string): string {
  const match =
    /^No connection established\. Last error: (?:\w*Error: )?(.*?)(?: \(\d{4}-\d\d-\d\dT[^)]*\))?\. Resolution note: ?.*$/s.exec(
      text,
    );
  return match?.[1] === undefined ? text : `cannot connect: ${match[1]}`;
}
