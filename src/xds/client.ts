/**
 * The delta xDS client: one stream at a time to the control plane, mesh updates out of it. Fail-static: while there is no
 * stream, or only responses that cannot be used, the last good state stays.
 */
import { type BackoffPolicy, backoffMs } from '../base/backoff.ts';
import { ChangeLog } from '../base/change-log.ts';
import { MeshError } from '../base/errors.ts';
import type { LogFields } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { MeshDemand } from '../model/mesh-demand.ts';
import type { DuplexCall, RpcChannel } from '../rpc/channel.ts';
import { rpcStatusOf, wasConnected } from '../rpc/status.ts';
import type { XdsTermination } from '../telemetry/metrics-xds.ts';
import { AggregatedDiscoveryService } from '../wire/pb/discovery_pb.ts';
import { type FeedStatus, MeshFeed, type MeshFeedDeps, type MeshFeedOptions } from './mesh-feed.ts';
import type { ResponseLog } from './response-log.ts';

export interface XdsClientDeps extends Omit<MeshFeedDeps, 'archive'> {
  readonly random: Random;
  readonly channel: Pick<RpcChannel, 'duplex' | 'peer'>;
  /** What was accepted, kept for the next start. */
  readonly archive?: Pick<ResponseLog, 'restore' | 'append'>;
}

export interface XdsStatus extends Omit<FeedStatus, 'refusal'> {
  /** Name and address of the control plane. */
  readonly peer: string;
  readonly isConnected: boolean;
  /** Why the last stream ended badly; once another one serves, why what it told was refused. */
  readonly lastError?: string;
}

/** ztunnel's delays, with jitter: a thousand nodes come back after an outage. */
const RECONNECT: BackoffPolicy = { firstMs: 10, maxMs: 15_000, jitter: 0.3 };
/**
 * A stream that was answered and lived this long was good: the next one is tried at once. A server that takes every stream
 * and drops it is not courted a hundred times a second.
 */
const STABLE_MS = 5_000;
/** Pauses before everything is asked for again after a refused response; each time costs the server a full answer. */
const RESYNC: BackoffPolicy = { firstMs: 1_000, maxMs: 60_000, jitter: 0.3 };
/** Lines about lost streams: one in so many milliseconds at most. */
const LOG_PERIOD_MS = 1_000;

/** One stream while it lasts. */
interface Stream {
  readonly call: DuplexCall;
  /** The server has said something. */
  isAnswered: boolean;
  /** A question of ours is not on its way yet, or what comes before any. */
  isAsking: boolean;
  /** We end it ourselves, to be told everything again. */
  isResync: boolean;
  resync?: Disposable;
}

/** Runs from `start` until it is disposed. */
export class XdsClient implements MeshDemand, AsyncDisposable {
  readonly #deps: XdsClientDeps;
  readonly #feed: MeshFeed;
  readonly #stopping = new AbortController();
  readonly #losses: ChangeLog;
  #running: Promise<void> | undefined;
  #stream: Stream | undefined;
  #lastError: string | undefined;
  #resyncs = 0;

  constructor(options: MeshFeedOptions, deps: XdsClientDeps) {
    this.#deps = deps;
    this.#feed = new MeshFeed(options, deps);
    this.#losses = new ChangeLog(deps.clock, LOG_PERIOD_MS);
  }

  get status(): XdsStatus {
    const { peer } = this.#deps.channel;
    const isConnected = this.#stream?.isAnswered === true;
    const { refusal, ...feed } = this.#feed.status;
    const lastError = this.#lastError ?? refusal;
    return { ...feed, peer, isConnected, ...(lastError !== undefined && { lastError }) };
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** `key`: `network/ip`, `namespace/hostname` or a UID. Only of use on demand. */
  async fetch(key: string, signal: AbortSignal): Promise<void> {
    const answered = this.#feed.demand(key, signal);
    void this.#ask();
    if (await answered) return;
    throw new MeshError('CV-MESH-SILENT', `${this.#deps.channel.peer} has not answered`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new Error('the agent is stopping'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, random, archive } = this.#deps;
    if (archive !== undefined) await this.#feed.restore(await archive.restore());
    let attempt = 0;
    while (!this.#stopping.signal.aborted) {
      const openedMs = clock.monotonicMs();
      const { stream, error } = await this.#serve();
      const wasStable = stream?.isAnswered === true && clock.monotonicMs() - openedMs >= STABLE_MS;
      if (wasStable || stream?.isResync === true) attempt = 0;
      const retryMs = backoffMs(RECONNECT, attempt, random);
      attempt += 1;
      if (this.#stopping.signal.aborted) return;
      if (stream?.isResync !== true) this.#report(error, Math.round(retryMs));
      await this.#pause(retryMs);
    }
  }

  /** One stream, from its opening to its end. Anything but a `MeshError` is a defect, and thrown. */
  async #serve(): Promise<{ readonly stream?: Stream; readonly error?: MeshError }> {
    let stream: Stream | undefined;
    try {
      const { deltaAggregatedResources: method } = AggregatedDiscoveryService.method;
      const call = this.#deps.channel.duplex(method, this.#stopping.signal);
      stream = { call, isAnswered: false, isAsking: true, isResync: false };
      this.#stream = stream;
      await this.#exchange(stream);
      return { stream };
    } catch (error) {
      if (!(error instanceof MeshError)) throw error;
      if (rpcStatusOf(error) === 'RESOURCE_EXHAUSTED' && stream?.isAnswered === false) this.#feed.shrinkRequests();
      return { error, ...(stream !== undefined && { stream }) };
    } finally {
      stream?.resync?.[Symbol.dispose]();
      stream?.call.cancel();
      this.#stream = undefined;
      this.#deps.metrics.connected(false);
    }
  }

  async #exchange(stream: Stream): Promise<void> {
    const { call } = stream;
    for (const request of await this.#feed.opened()) void call.send(request);
    stream.isAsking = false;
    void this.#ask();
    for (let message = await call.read(); message !== undefined; message = await call.read()) {
      if (!stream.isAnswered) this.#established(stream);
      const { request, isResyncDue } = await this.#feed.take(message);
      // Waiting for our answer to go out is the back-pressure on a server that sends and does not read.
      if (request !== undefined) await call.send(request);
      if (isResyncDue) this.#resyncLater(stream);
      else if (!this.#feed.status.isBehind) this.#resyncs = 0;
    }
  }

  /** One question at a time: what is demanded while a slow server takes one goes with the next, and is not queued. */
  async #ask(): Promise<void> {
    const stream = this.#stream;
    if (stream === undefined || stream.isAsking) return;
    stream.isAsking = true;
    while (stream === this.#stream) {
      const question = this.#feed.question();
      if (question === undefined) break;
      await stream.call.send(question);
    }
    stream.isAsking = false;
  }

  #established(stream: Stream): void {
    stream.isAnswered = true;
    this.#lastError = undefined;
    this.#losses.reset();
    this.#deps.metrics.connected(true);
    this.#deps.log.info?.('Stream established', { server: this.#deps.channel.peer });
  }

  #resyncLater(stream: Stream): void {
    const { clock, random, log } = this.#deps;
    if (stream.resync !== undefined) return;
    stream.resync = clock.after(backoffMs(RESYNC, this.#resyncs, random), () => {
      log.debug?.('asking for the whole mesh again after a refused response');
      stream.isResync = true;
      stream.call.cancel();
    });
    this.#resyncs += 1;
  }

  /** One line when the reason is new; ztunnel's words. */
  #report(error: MeshError | undefined, retryMs: number): void {
    const { metrics, log } = this.#deps;
    const termination = terminationOf(error);
    metrics.streamEnded(termination);
    this.#lastError = error?.message ?? 'the control plane ended the stream';
    const fields: LogFields = { reason: 'CV-XDS', error: this.#lastError, retryMs };
    if (termination === 'Complete') log.debug?.('XDS client complete', fields);
    else if (termination === 'Reconnect') log.debug?.('XDS client terminated', fields);
    else {
      const message = termination === 'Error' ? 'XDS client error' : 'XDS client connection error';
      this.#losses.note(`${message} ${this.#lastError}`, (leftOut) => log.warn?.(message, { ...fields, leftOut }));
    }
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { signal } = this.#stopping;
    using _timer = this.#deps.clock.after(ms, resolve);
    const stop = (): void => resolve();
    signal.addEventListener('abort', stop, { once: true });
    await promise;
    signal.removeEventListener('abort', stop);
  }
}

/** Ends that are part of the life of a connection: its age, a restart of the server, a broken path. */
const ORDINARY_ENDS: ReadonlySet<string | undefined> = new Set(['UNKNOWN', 'CANCELLED', 'DEADLINE_EXCEEDED']);
/** As gRPC libraries word the end of a connection below a stream; the status alone is that of a server that says no, too. */
const CONNECTION_LOST = /transport is closing|received prior goaway|connection dropped|ECONNRESET/i;

function terminationOf(error: MeshError | undefined): XdsTermination {
  if (error === undefined) return 'Complete';
  if (!wasConnected(error)) return 'ConnectionError';
  const rpcStatus = rpcStatusOf(error);
  const isLost = rpcStatus === 'UNAVAILABLE' && CONNECTION_LOST.test(error.message);
  return ORDINARY_ENDS.has(rpcStatus) || isLost ? 'Reconnect' : 'Error';
}
