/**
 * The tunnel side of a connection between two Culvert agents: while one of them is replaced the stream leaves its tunnel, and
 * finds another one. Its client asks for it with the token of the stream; its server keeps it until then.
 */
import { backoffMs } from '../base/backoff.ts';
import { type Clock, deadline, delay } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { TunnelRoute } from '../model/verdict.ts';
import type { TunnelKey } from '../tunnel/client-pool.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import { type BytesUnderWay, type ResumableOwner, ResumableStream } from '../tunnel/resumable-stream.ts';
import { readResumeAnswer, resumeFields } from '../wire/resume.ts';
import { connectHeaders, openStream, type TunnelPool } from './connect.ts';
import type { HboneQuestion, SuspendedTunnel, WayBack } from './inheritance.ts';
import type { PodContext } from './pod-context.ts';

/** From the end of one tunnel to the next: both ends give up then. It is for ends that nobody tells of, not for slow ones. */
const RESUME_WITHIN_MS = 60_000;
/** The other end is gone when all that is said there for so long is that it is; it may be on its way between two threads. */
const GONE_FOR_MS = 5_000;
/** And it was said so often: who had no CPU meanwhile has heard nothing. */
const GONE_TIMES = 5;
const RETRY = { firstMs: 20, maxMs: 500, jitter: 0.5 } as const;
/** The answer will not be another one. */
const FINAL: ReadonlySet<ReasonCode> = new Set([
  'CV-CONNECT-DENIED',
  'CV-CONNECT-REJECTED',
  'CV-RESUME-LATE',
  'CV-DRAIN',
  'CV-BUG',
]);

/** A `WayBack` that can be gone. */
export type OpenWayBack =
  | (Extract<WayBack, { kind: 'ask' }> & { readonly pool: TunnelPool })
  | Extract<WayBack, { kind: 'wait' }>;

export interface ResumableTunnelParts {
  /** Of the connection. */
  readonly id: string;
  readonly token: string;
  readonly wayBack: OpenWayBack;
  /** The tunnel it is in; or what was under way when it left the last one, and then it must be told to `seek`. */
  readonly from: H2Stream | BytesUnderWay;
  /** It has a tunnel again, for the first time here. */
  readonly onResumed?: () => void;
}

export class ResumableTunnel implements ResumableOwner {
  readonly id: string;
  readonly stream: ResumableStream;
  readonly #context: PodContext;
  readonly #wayBack: OpenWayBack;
  #token: string;
  #deadline: Disposable | undefined;
  #isAsking = false;
  #isTaken = false;
  #onResumed: (() => void) | undefined;

  constructor(context: PodContext, { id, token, wayBack, from, onResumed }: ResumableTunnelParts) {
    this.id = id;
    this.#context = context;
    this.#wayBack = wayBack;
    this.#token = token;
    this.#onResumed = onResumed;
    this.stream = new ResumableStream(this, from);
  }

  /** It can be asked to leave its tunnel, or waits for the next. */
  get isMovable(): boolean {
    return !this.#isAsking && !this.stream.isClosed && this.stream.canLeave;
  }

  /** In no tunnel: its client is waited for. */
  get isParked(): boolean {
    return this.#wayBack.kind === 'wait' && this.stream.isDetached && !this.stream.isClosed;
  }

  /** It asks for its next tunnel, and cannot move before it has it. */
  get isAsking(): boolean {
    return this.#isAsking && !this.stream.isClosed;
  }

  /** The tunnel it will ask for when it has to leave the one it is in; `undefined`: it is its client who asks. */
  get key(): TunnelKey | undefined {
    if (this.#wayBack.kind === 'wait') return undefined;
    const { address, identity, expectedIdentities } = this.#wayBack.route;
    return { address, identity, expectedIdentities };
  }

  /** `authority` is what the client of this stream may ask for, and `peerIdentity` is its own. */
  isOf({ authority, peerIdentity }: HboneQuestion): boolean {
    if (this.#wayBack.kind !== 'wait' || peerIdentity === undefined) return false;
    const { question } = this.#wayBack;
    return question.peerIdentity === peerIdentity && question.authority === authority;
  }

  /** In no tunnel: begins to look for the next, or waits for who does. Idempotent. */
  seek(): void {
    this.#deadline ??= deadline(this.#context.deps.clock, RESUME_WITHIN_MS, () => this.#late());
    this.#context.deps.log.debug?.('stream suspended', { connection: this.id, next: this.#wayBack.kind });
    if (this.#wayBack.kind === 'wait') this.#context.parked.add(this.#token, this);
    else if (!this.#isAsking) void this.#ask(this.#wayBack.route, this.#wayBack.pool);
  }

  #late(): void {
    this.stream.destroy(new MeshError('CV-RESUME-LATE', 'the stream was suspended and did not go on in time'));
    this.#found();
  }

  streamDetached(): void {
    this.seek();
  }

  /** The other end hears of it by the next tunnel. */
  streamClosed(): void {
    if (!this.#isAsking) this.#found();
    const isMissed = this.#wayBack.kind === 'wait' && this.stream.isDetached && !this.#isTaken;
    if (isMissed) this.#context.parked.bury(this.#token, this);
  }

  /** Goes on in the tunnel of `stream`; `token` is for the next time, as this one is used. */
  attach(stream: H2Stream, token: string): void {
    this.#found();
    this.#token = token;
    this.#context.deps.log.debug?.('stream resumed', { connection: this.id });
    this.stream.attach(stream);
    this.#onResumed?.();
    this.#onResumed = undefined;
  }

  /** As `ResumableStream.suspend`. Nobody can attach it meanwhile. */
  async suspend(clock: Clock, withinMs: number): Promise<boolean> {
    if (this.#isAsking) return false;
    this.#context.deps.log.debug?.('stream leaves its tunnel', { connection: this.id });
    this.#context.parked.delete(this.#token);
    return await this.stream.suspend(clock, withinMs);
  }

  /** Once suspended: for another process, or thread, to go on with. */
  take(): SuspendedTunnel {
    this.#isTaken = true;
    const wayBack: WayBack =
      this.#wayBack.kind === 'wait' ? this.#wayBack : { kind: 'ask', route: plainRoute(this.#wayBack.route) };
    return { token: this.#token, wayBack, ...this.stream.take() };
  }

  #found(): void {
    this.#deadline?.[Symbol.dispose]();
    this.#deadline = undefined;
    this.#context.parked.delete(this.#token);
  }

  /** Until the deadline, also when the stream has closed meanwhile: the other end is told so. */
  async #ask(route: TunnelRoute, pool: TunnelPool): Promise<void> {
    const { clock, random } = this.#context.deps;
    this.#isAsking = true;
    let goneSinceMs: number | undefined;
    let goneTimes = 0;
    for (let attempt = 0; this.#deadline !== undefined; attempt++) {
      try {
        const { stream, token } = await this.#askOnce(route, pool);
        this.#isAsking = false;
        this.attach(stream, token);
        return;
      } catch (caught) {
        const error = toMeshError(caught);
        const nowMs = clock.monotonicMs();
        const isGone = error.code === 'CV-RESUME-UNKNOWN';
        goneSinceMs = isGone ? (goneSinceMs ?? nowMs) : undefined;
        goneTimes = isGone ? goneTimes + 1 : 0;
        if (FINAL.has(error.code)) this.#giveUp(error);
        else if (goneTimes >= GONE_TIMES && nowMs - (goneSinceMs ?? nowMs) >= GONE_FOR_MS) this.#giveUp(gone());
        else await delay(clock, backoffMs(RETRY, attempt, random));
      }
    }
  }

  #giveUp(error: MeshError): void {
    this.#isAsking = false;
    this.stream.destroy(error);
    this.#found();
  }

  async #askOnce(route: TunnelRoute, pool: TunnelPool): Promise<{ readonly stream: H2Stream; readonly token: string }> {
    const headers = { ...connectHeaders(this.#context, route), ...resumeFields(this.#token) };
    const { stream, answer } = await openStream(this.#context, pool, route, headers);
    const token = readResumeAnswer(answer.headers);
    if (token !== undefined) return { stream, token };
    const error = new MeshError(
      'CV-RESUME-LATE',
      'the stream was suspended, and who serves there now cannot go on with it',
    );
    stream.destroy(error);
    throw error;
  }
}

function gone(): MeshError {
  return new MeshError('CV-RESUME-LATE', 'the stream was suspended, and its other end is gone');
}

/** Without what else a verdict has. */
function plainRoute({
  address,
  authority,
  identity,
  expectedIdentities,
  baggage,
  forwarded,
}: TunnelRoute): TunnelRoute {
  return { address, authority, identity, expectedIdentities, baggage, forwarded };
}
