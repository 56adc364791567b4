/** SVIDs from the SPIFFE Workload API over a unix socket, for example of a SPIRE agent: one stream, kept open. */
import { create } from '@bufbuild/protobuf';
import { type BackoffPolicy, backoffMs } from '../base/backoff.ts';
import { type Clock, delay } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { RpcChannel } from '../rpc/channel.ts';
import { type RpcStatus, rpcStatusOf } from '../rpc/status.ts';
import { SpiffeWorkloadAPI, X509SVIDRequestSchema, type X509SVIDResponse } from '../wire/pb/spiffe_pb.ts';
import type { CertificateProvider, IssuedCertificate, RenewalListener } from './certificate-provider.ts';
import { readSvidResponse } from './svid-response.ts';

/** Every request must have it (SPIFFE Workload Endpoint §3). */
export const WORKLOAD_HEADERS: ReadonlyMap<string, string> = new Map([['workload.spiffe.io', 'true']]);

const RETRY: BackoffPolicy = { firstMs: 200, maxMs: 30_000, jitter: 0.2 };
/** Clients should not retry these (Workload Endpoint §6); we look again now and then, since an upgrade may mend them. */
const HOPELESS: ReadonlySet<RpcStatus> = new Set(['INVALID_ARGUMENT', 'UNIMPLEMENTED']);
const HOPELESS_ATTEMPT = 30;
/** A SPIRE agent that restarts denies everybody for some seconds; a denial that lasts takes every SVID back. */
const DENIAL_MS = 60_000;

export interface WorkloadApiDeps {
  /** Over a unix socket, with `CV-WORKLOAD-API` as its failure code and `WORKLOAD_HEADERS`; owned by the caller. */
  readonly channel: RpcChannel;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Counts the stream's failures, and responses that cannot be used. */
  readonly onProblem: (error: MeshError) => void;
}

export class WorkloadApi implements CertificateProvider, Disposable {
  readonly title: string;
  readonly #deps: WorkloadApiDeps;
  readonly #closing = new AbortController();
  readonly #listeners = new Set<RenewalListener>();
  /** Settles, never rejects, with the first response or the first failure: whoever asked before waits for it. */
  readonly #first = Promise.withResolvers<void>();
  #isFirstOver = false;
  #svids: ReadonlyMap<string, IssuedCertificate> = new Map();
  #problem: MeshError | undefined;
  #deniedSinceMs: number | undefined;
  #isCrlSaid = false;

  /** Starts the stream at once; it ends with `[Symbol.dispose]`. */
  constructor(deps: WorkloadApiDeps) {
    this.title = deps.channel.peer;
    this.#deps = deps;
    void this.#run(this.#closing.signal);
  }

  async issue(identity: string, _csrPem: string, _ttlMs: number, signal: AbortSignal): Promise<IssuedCertificate> {
    const aborted = Promise.withResolvers<void>();
    signal.addEventListener('abort', () => aborted.resolve(), { once: true });
    await Promise.race([this.#first.promise, aborted.promise]);
    const issued = this.#svids.get(identity);
    if (issued !== undefined) return issued;
    throw this.#problem ?? this.#unregistered();
  }

  subscribeRenewals(listener: RenewalListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  [Symbol.dispose](): void {
    this.#closing.abort(new MeshError('CV-DRAIN', 'the agent is stopping'));
    this.#listeners.clear();
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#deps;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      attempt = await this.#stream(signal, attempt);
      if (!signal.aborted) await delay(clock, backoffMs(RETRY, Math.max(0, attempt - 1), random));
    }
  }

  /** One stream to its end. Returns from which attempt to back off: a stream that brought something is followed at once. */
  async #stream(signal: AbortSignal, attempt: number): Promise<number> {
    const { channel } = this.#deps;
    const method = SpiffeWorkloadAPI.method.fetchX509SVID;
    let reached = attempt;
    let isHeard = false;
    try {
      for await (const response of channel.serverStream(method, create(X509SVIDRequestSchema), signal)) {
        isHeard = true;
        if (this.#take(response)) reached = 0;
      }
      if (!isHeard) throw new MeshError('CV-WORKLOAD-API', `${this.title}: the server ended the stream at once`);
    } catch (error) {
      if (signal.aborted) return 0;
      const failure = toMeshError(error, 'CV-WORKLOAD-API');
      this.#failed(failure);
      if (HOPELESS.has(rpcStatusOf(failure) ?? 'UNKNOWN')) return HOPELESS_ATTEMPT;
    }
    return reached;
  }

  /** False when the response cannot be used. */
  #take(response: X509SVIDResponse): boolean {
    this.#deniedSinceMs = undefined;
    if (response.crl.length > 0) this.#warnOfCrls();
    try {
      this.#replace(readSvidResponse(response));
      this.#problem = undefined;
      return true;
    } catch (error) {
      this.#report(toMeshError(error, 'CV-WORKLOAD-API'));
      return false;
    } finally {
      this.#answerWaiting();
    }
  }

  #warnOfCrls(): void {
    if (this.#isCrlSaid) return;
    this.#isCrlSaid = true;
    this.#deps.log.warn?.('revocation lists of the Workload API are not used; put them into the file at CRL_PATH');
  }

  /** A response is complete: what is not in it was taken back. */
  #replace(svids: ReadonlyMap<string, IssuedCertificate>): void {
    const former = this.#svids;
    this.#svids = svids;
    const renewed = [...svids.keys()].filter((identity) => !isSame(svids.get(identity), former.get(identity)));
    const withdrawn = [...former.keys()].filter((identity) => !svids.has(identity));
    const { log } = this.#deps;
    log.info?.('SVIDs received', { svids: svids.size, renewed: renewed.length, withdrawn: withdrawn.length });
    // Before the first answer everybody who asked still waits, and gets it without being told.
    if (this.#isFirstOver) this.#tell(renewed, 'renewed');
    this.#tell(withdrawn, 'withdrawn');
  }

  #answerWaiting(): void {
    this.#isFirstOver = true;
    this.#first.resolve();
  }

  #failed(error: MeshError): void {
    this.#report(error);
    this.#answerWaiting();
    if (rpcStatusOf(error) !== 'PERMISSION_DENIED') {
      this.#deniedSinceMs = undefined;
      return;
    }
    const nowMs = this.#deps.clock.monotonicMs();
    this.#deniedSinceMs ??= nowMs;
    if (nowMs - this.#deniedSinceMs < DENIAL_MS || this.#svids.size === 0) return;
    const withdrawn = [...this.#svids.keys()];
    this.#svids = new Map();
    this.#deps.log.warn?.('SVIDs are given up: the Workload API keeps denying them', { svids: withdrawn.length });
    this.#tell(withdrawn, 'withdrawn');
  }

  /** One line per problem; what was received serves on. */
  #report(error: MeshError): void {
    this.#deps.onProblem(error);
    if (error.message === this.#problem?.message) return;
    this.#problem = error;
    const { log } = this.#deps;
    log.warn?.('Workload API failed; SVIDs in use serve on', { reason: error.code, error: error.message });
  }

  #unregistered(): MeshError {
    const text = `${this.title}: no SVID for this identity; register the agent for it`;
    return new MeshError('CV-WORKLOAD-API', text, { svids: this.#svids.size });
  }

  #tell(identities: readonly string[], change: Parameters<RenewalListener>[1]): void {
    if (identities.length === 0) return;
    for (const listener of [...this.#listeners]) listener(identities, change);
  }
}

function isSame(a: IssuedCertificate | undefined, b: IssuedCertificate | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
