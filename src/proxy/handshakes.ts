/** TLS handshakes of peers that dial port 15008 of one pod: bounded, in turn, and dear for who was cut before. */
import { setImmediate } from 'node:timers';
import { deadline } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { SlotMap } from '../base/slot-map.ts';
import { handshakeTimeout, tlsFailure } from '../identity/tls-failure.ts';
import { type AcceptedTls, acceptTls } from '../identity/tls-handshake.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import type { Arrival } from '../sys/arrivals.ts';
import { hasFirstRecord } from '../wire/tls-hello.ts';
import type { Offenders } from './offenders.ts';
import { type Ends, GREETING_MS, HANDSHAKE_END_MS, type PodContext } from './pod-context.ts';

/** Connections of one address that nothing was answered to; one more, and its own oldest goes. */
const MOST_OF_ONE = 64;

/** One for all: in a flood there are thousands of it, each with a stack that would say nothing. */
const GONE = tlsFailure(new Error('the connection was closed before the handshake'));
const TOO_MANY_OF_ONE = new MeshError(
  'CV-LIMIT',
  `dropped for a newer one: ${MOST_OF_ONE} connections of this peer wait for their handshake`,
);

/** Somebody whose handshake is not done. */
interface Handshake {
  readonly id: number;
  readonly arrival: Arrival;
  readonly ends: Ends;
  readonly sinceMs: number;
  /** Ends a wait for its greeting, or for the time that an offender has to wait. */
  timer?: Disposable;
  /** For its greeting; then what is left of it, or half, for the handshake itself. */
  timeoutMs: number;
  /** Within the budget. */
  isAdmitted?: boolean;
  /** Why we ended it, if we did. */
  dropped?: MeshError;
}

/** Called once for each that was accepted; what is refused is closed. */
export interface HandshakeOutcomes {
  readonly secured: (secured: AcceptedTls, ends: Ends) => void;
  readonly refused: (ends: Ends, error: unknown) => void;
}

export class Handshakes {
  readonly #context: PodContext;
  readonly #offenders: Offenders;
  readonly #outcomes: HandshakeOutcomes;
  /** Oldest first; to the silent ones nothing was answered. */
  readonly #silent = new SlotMap<number, Handshake>();
  readonly #answered = new SlotMap<number, Handshake>();
  /** The silent ones again, by address of the peer. */
  readonly #silentOf = new Map<string, SlotMap<number, Handshake>>();
  /** Handshakes that were answered and have come to nothing yet, by address of the peer. */
  readonly #inProgress = new Map<string, number>();
  #accepted = 0;
  readonly #late: MeshError;
  readonly #tooMany: MeshError;
  /** Resolves when the next one may begin. */
  #beginning: Promise<void> = Promise.resolve();

  /** Asked whenever more of one has come. */
  readonly #isGreeting = (head: Uint8Array): boolean => {
    const { share } = this.#context;
    share.enter();
    const isWhole = hasFirstRecord(head);
    share.leave();
    return isWhole;
  };

  constructor(context: PodContext, offenders: Offenders, outcomes: HandshakeOutcomes) {
    this.#context = context;
    this.#offenders = offenders;
    this.#outcomes = outcomes;
    const { handshakeTimeoutMs, maxHandshakes } = context.settings;
    this.#late = handshakeTimeout(handshakeTimeoutMs);
    this.#tooMany = new MeshError(
      'CV-LIMIT',
      `dropped for a newer one: this pod has ${maxHandshakes} handshakes in progress`,
    );
  }

  /** In progress, or waited for. */
  get count(): number {
    return this.#silent.size + this.#answered.size;
  }

  /**
   * Owns it from now on. Until the first record of the peer is there it costs a descriptor: no TLS is set up for who says nothing, or
   * half a word.
   */
  accept(arrival: Arrival, ends: Ends): void {
    const { clock } = this.#context.deps;
    const timeoutMs = this.#context.settings.handshakeTimeoutMs;
    const handshake: Handshake = { id: ++this.#accepted, arrival, ends, sinceMs: clock.monotonicMs(), timeoutMs };
    this.#makeRoom(ends);
    this.#hush(handshake);
    handshake.timer = deadline(clock, timeoutMs, () => this.#saidNothing(handshake, this.#late));
    arrival.hear(this.#isGreeting, (isThere) => this.#heard(handshake, isThere));
  }

  close(error: MeshError): void {
    for (const handshake of [...this.#silent.values(), ...this.#answered.values()]) this.#drop(handshake, error);
  }

  #heard(handshake: Handshake, isThere: boolean): void {
    this.#context.share.enter();
    handshake.timer?.[Symbol.dispose]();
    if (!isThere) {
      this.#saidNothing(handshake, GONE);
      return;
    }
    // Half of it at least: we may have had no CPU to see it.
    handshake.timeoutMs = Math.max(handshake.timeoutMs / 2, handshake.timeoutMs - this.#ageMs(handshake));
    this.#greeted(handshake);
  }

  #ageMs({ sinceMs }: Handshake): number {
    return this.#context.deps.clock.monotonicMs() - sinceMs;
  }

  /** How long it has to wait yet, as its address is known today. */
  #penanceMs(handshake: Handshake): number {
    const { ip } = handshake.ends.peer;
    return this.#offenders.delayMs(ip, this.#inProgress.get(ip)) - this.#ageMs(handshake);
  }

  /** Goes on once it has waited long enough. Until then its greeting stays in the kernel. */
  #greeted(handshake: Handshake): void {
    const leftMs = this.#penanceMs(handshake);
    if (leftMs > 0) {
      handshake.timer = this.#context.deps.clock.after(leftMs, () => this.#greeted(handshake));
      return;
    }
    this.#unhush(handshake);
    this.#answered.set(handshake.id, handshake);
    void this.#answer(handshake);
  }

  /** Never rejects. */
  async #answer(handshake: Handshake): Promise<void> {
    const { share, connections } = this.#context;
    try {
      if (handshake.isAdmitted !== true) await this.#context.handshakeTurn();
      handshake.isAdmitted = true;
      // Asked for each handshake, so that a renewed certificate serves the very next one.
      const material = await connections.arrive(this.#material());
      const secured = await this.#secure(handshake, material);
      if (secured === undefined) {
        this.#answered.delete(handshake.id);
        this.#hush(handshake);
        this.#greeted(handshake);
        return;
      }
      share.enter(HANDSHAKE_END_MS);
      // It is counted here until it is there: whoever closes all of them, or waits for them, must find it.
      this.#outcomes.secured(secured, handshake.ends);
      this.#answered.delete(handshake.id);
    } catch (error) {
      this.#refuse(handshake, handshake.dropped ?? error);
    }
  }

  /**
   * One greeting is answered per turn of the event loop, and each asks again whether it is the pod's turn: of many that came at
   * once, all would have been told so before the first had cost anything. `undefined`: those before it make it wait longer.
   */
  async #secure(handshake: Handshake, material: TlsMaterial): Promise<AcceptedTls | undefined> {
    const { share } = this.#context;
    const former = this.#beginning;
    const own = Promise.withResolvers<void>();
    this.#beginning = own.promise;
    let secured: Promise<AcceptedTls>;
    try {
      await former;
      await share.turn();
      if (handshake.dropped !== undefined) throw handshake.dropped;
      if (this.#penanceMs(handshake) > 0) {
        own.resolve();
        return undefined;
      }
      share.enter();
      secured = this.#begin(handshake, material);
      share.expect(GREETING_MS);
    } finally {
      setImmediate(own.resolve);
    }
    return await secured;
  }

  async #begin({ arrival, ends, timeoutMs }: Handshake, material: TlsMaterial): Promise<AcceptedTls> {
    const { contexts, clock, revocation } = this.#context.deps;
    const { ip } = ends.peer;
    this.#inProgress.set(ip, (this.#inProgress.get(ip) ?? 0) + 1);
    try {
      return await acceptTls(arrival.socket(), material, { contexts, clock, revocation, timeoutMs });
    } catch (error) {
      this.#offenders.failed(ip);
      throw error;
    } finally {
      const others = (this.#inProgress.get(ip) ?? 1) - 1;
      if (others > 0) this.#inProgress.set(ip, others);
      else this.#inProgress.delete(ip);
    }
  }

  async #material(): Promise<TlsMaterial> {
    const { deps, pod } = this.#context;
    return await deps.verdicts.certificate(await deps.verdicts.identityOf(pod.uid));
  }

  #makeRoom({ peer }: Ends): void {
    const { maxHandshakes } = this.#context.settings;
    // A handshake takes milliseconds; when very many are open the oldest is the least likely to be honest, a silent one first.
    const [oldest] = (this.#silent.size > 0 ? this.#silent : this.#answered).values();
    if (this.count >= maxHandshakes && oldest !== undefined) this.#crowdOut(oldest, false);
    const ofOne = this.#silentOf.get(peer.ip);
    const [first] = ofOne?.values() ?? [];
    if (first !== undefined && (ofOne?.size ?? 0) >= MOST_OF_ONE) this.#crowdOut(first, true);
  }

  #crowdOut(handshake: Handshake, isOwn: boolean): void {
    this.#offenders.crowd(isOwn);
    this.#drop(handshake, isOwn ? TOO_MANY_OF_ONE : this.#tooMany);
  }

  #saidNothing(handshake: Handshake, error: MeshError): void {
    this.#offenders.silent();
    this.#refuse(handshake, error);
  }

  #hush(handshake: Handshake): void {
    const { ip } = handshake.ends.peer;
    this.#silent.set(handshake.id, handshake);
    let ofOne = this.#silentOf.get(ip);
    if (ofOne === undefined) this.#silentOf.set(ip, (ofOne = new SlotMap()));
    ofOne.set(handshake.id, handshake);
  }

  #unhush(handshake: Handshake): void {
    const { ip } = handshake.ends.peer;
    this.#silent.delete(handshake.id);
    const ofOne = this.#silentOf.get(ip);
    ofOne?.delete(handshake.id);
    if (ofOne?.size === 0) this.#silentOf.delete(ip);
  }

  /** One that was answered hears of it in its own time. */
  #drop(handshake: Handshake, error: MeshError): void {
    handshake.dropped ??= error;
    if (this.#silent.has(handshake.id)) {
      this.#refuse(handshake, error);
      return;
    }
    this.#answered.delete(handshake.id);
    handshake.arrival.close();
  }

  #refuse(handshake: Handshake, error: unknown): void {
    this.#context.share.enter();
    this.#unhush(handshake);
    this.#answered.delete(handshake.id);
    handshake.timer?.[Symbol.dispose]();
    handshake.arrival.close();
    this.#outcomes.refused(handshake.ends, error);
  }
}
