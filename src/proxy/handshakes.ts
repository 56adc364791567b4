/** TLS handshakes of peers that dial port 15008 of one pod: bounded, in turn, and dear for who was cut before. */
import type net from 'node:net';
import { setImmediate } from 'node:timers';
import { withDeadline } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import type { HostPort } from '../base/ip.ts';
import { handshakeTimeout, tlsFailure } from '../identity/tls-failure.ts';
import { type AcceptedTls, acceptTls } from '../identity/tls-handshake.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import { received } from '../sys/first-bytes.ts';
import { hasFirstRecord } from '../wire/tls-hello.ts';
import type { Offenders } from './offenders.ts';
import { GREETING_MS, HANDSHAKE_END_MS, type PodContext } from './pod-context.ts';

/** A socket whose handshake is not done. */
interface Handshake {
  readonly socket: net.Socket;
  readonly peer: HostPort;
  /** Why we ended it, if we did. */
  dropped?: MeshError;
}

export class Handshakes {
  readonly #context: PodContext;
  readonly #offenders: Offenders;
  /** Oldest first; of the silent ones no whole greeting has come. */
  readonly #silent = new Set<Handshake>();
  readonly #answered = new Set<Handshake>();
  /** Made once: in a flood there are thousands of them, each with a stack that says nothing. */
  #tooMany: MeshError | undefined;
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

  constructor(context: PodContext, offenders: Offenders) {
    this.#context = context;
    this.#offenders = offenders;
  }

  /** In progress, or waited for. */
  get count(): number {
    return this.#silent.size + this.#answered.size;
  }

  /** Gives the secured socket to `serve`, or rejects; `socket` is destroyed then. */
  async accept(socket: net.Socket, peer: HostPort, serve: (secured: AcceptedTls) => void): Promise<void> {
    const handshake: Handshake = { socket, peer };
    try {
      this.#makeRoom();
      this.#silent.add(handshake);
      await this.#penance(socket, this.#offenders.delayMs(peer.ip));
      const timeoutMs = await this.#greeting(handshake);
      this.#silent.delete(handshake);
      this.#answered.add(handshake);
      await this.#context.handshakeTurn();
      // Asked for each handshake, so that a renewed certificate serves the very next one.
      const material = await this.#context.connections.arrive(this.#material());
      const secured = await this.#secure(handshake, material, timeoutMs);
      this.#context.share.enter(HANDSHAKE_END_MS);
      // Not later: whoever closes all of them, or waits for them, must find it here or there.
      serve(secured);
    } catch (error) {
      socket.destroy();
      throw handshake.dropped ?? error;
    } finally {
      this.#silent.delete(handshake);
      this.#answered.delete(handshake);
    }
  }

  close(error: MeshError): void {
    for (const handshake of [...this.#silent, ...this.#answered]) this.#drop(handshake, error);
  }

  /** Until it is over nothing is read: what the peer sends meanwhile stays in the kernel. */
  async #penance(socket: net.Socket, delayMs: number): Promise<void> {
    if (delayMs === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    using _end = this.#context.deps.clock.after(delayMs, resolve);
    socket.once('close', resolve);
    await promise;
    socket.off('close', resolve);
  }

  /**
   * Resolves when the first record of the peer is there, with the time that is left for the handshake, half of it at least: we may
   * have had no CPU to see it. Until then it costs a socket: no TLS is set up for who says nothing, or half a word.
   */
  async #greeting(handshake: Handshake): Promise<number> {
    const { socket } = handshake;
    const { settings, deps } = this.#context;
    const startedMs = deps.clock.monotonicMs();
    const { handshakeTimeoutMs } = settings;
    const greeting = received(socket, this.#isGreeting);
    const late = (): MeshError => handshakeTimeout(handshakeTimeoutMs);
    const isThere = await withDeadline(greeting, deps.clock, handshakeTimeoutMs, late);
    if (handshake.dropped !== undefined) throw handshake.dropped;
    this.#context.share.enter();
    if (!isThere) throw tlsFailure(new Error('the connection was closed before the handshake'));
    return Math.max(handshakeTimeoutMs / 2, handshakeTimeoutMs - (deps.clock.monotonicMs() - startedMs));
  }

  /**
   * One greeting is answered per turn of the event loop, and each asks again whether it is the pod's turn: of many that came at
   * once, all would have been told so before the first had cost anything.
   */
  async #secure(handshake: Handshake, material: TlsMaterial, timeoutMs: number): Promise<AcceptedTls> {
    const { share, deps } = this.#context;
    const former = this.#beginning;
    const own = Promise.withResolvers<void>();
    this.#beginning = own.promise;
    let secured: Promise<AcceptedTls>;
    try {
      await former;
      await share.turn();
      if (handshake.dropped !== undefined) throw handshake.dropped;
      share.enter();
      const { contexts, clock, revocation } = deps;
      secured = acceptTls(handshake.socket, material, { contexts, clock, revocation, timeoutMs });
      share.expect(GREETING_MS);
    } finally {
      setImmediate(own.resolve);
    }
    try {
      return await secured;
    } catch (error) {
      this.#offenders.failed(handshake.peer.ip);
      throw error;
    }
  }

  async #material(): Promise<TlsMaterial> {
    const { deps, pod } = this.#context;
    return await deps.verdicts.certificate(await deps.verdicts.identityOf(pod.uid));
  }

  #makeRoom(): void {
    const { maxHandshakes } = this.#context.settings;
    // A handshake takes milliseconds; when very many are open the oldest is the least likely to be honest, a silent one first.
    const [oldest] = this.#silent.size > 0 ? this.#silent : this.#answered;
    if (this.count < maxHandshakes || oldest === undefined) return;
    this.#tooMany ??= new MeshError(
      'CV-LIMIT',
      `dropped for a newer one: this pod has ${maxHandshakes} handshakes in progress`,
    );
    this.#drop(oldest, this.#tooMany);
  }

  #drop(handshake: Handshake, error: MeshError): void {
    handshake.dropped ??= error;
    this.#silent.delete(handshake);
    this.#answered.delete(handshake);
    handshake.socket.destroy();
  }
}
