/** The agent of a node while it serves: waits for a successor, and gives it all it has (`README.md`). One at a time. */
import { type Clock, delay } from '../../base/clock.ts';
import { MeshError, toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { NO_NEEDS, type TunnelNeeds } from '../../proxy/inheritance.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import type { RunLock } from '../../sys/run-lock.ts';
import type { FdMessage, UnixListener, UnixSocket } from '../../sys/unix-contract.ts';
import type { HandOverResult } from '../../telemetry/metrics-hand-over.ts';
import type { Estate } from './estate.ts';
import { type GiverEffect, type GiverInput, type GiverState, giverStep } from './giver-state.ts';
import { reportHeld } from './held-report.ts';
import { certificateParts, dropLegacy, type Legacy } from './legacy.ts';
import { HandOverLink } from './link.ts';
import { packetsOf } from './packets.ts';
import { decodeRequest, type HeldAgent, OFFER_TIMEOUT_MS, SILENCE_TIMEOUT_MS } from './protocol.ts';

/** For the last word to a successor that may hang. */
const LAST_WORD_MS = 1_000;
/** Pause after an accept that failed, and before a pod that could not be taken back is tried again. */
const RETRY_MS = 1_000;

export interface GiverDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly build: string;
  readonly estate: Estate;
  /** User that the other end must be. */
  readonly uid: number;
  readonly lock: RunLock;
  /** Connections that are open here, and those that were ended because they could not move. */
  readonly counts: () => { readonly live: number; readonly cut: number };
  /** Resolves when `counts` are those of now. */
  readonly settle: () => Promise<void>;
  /** How long what could not move is carried. */
  readonly holdMs: number;
  /** Agents before this one that still carry connections. */
  readonly predecessors: () => readonly HeldAgent[];
  /** Asks them for a suspended stream. */
  readonly claimBefore: (pod: string, claim: StreamClaim) => Promise<ClaimedStream>;
  readonly legacy: () => Promise<Legacy>;
  readonly servers: { yield(): Promise<void>; resume(): Promise<void> };
  /** How each exchange went. */
  readonly onResult: (result: HandOverResult) => void;
  /** The heir has the node: hold what could not move, then end. Called once. */
  readonly onLeft: () => void;
}

export class Giver implements AsyncDisposable {
  readonly #deps: GiverDeps;
  readonly #listener: UnixListener;
  #state: GiverState = { kind: 'alone' };
  #hasYielded = false;
  readonly #running: Promise<void>;
  readonly #over = Promise.withResolvers<void>();
  /** Until nothing is held any more. */
  #reporting: Promise<void> | undefined;
  #offered = 0;
  #moved = 0;

  /** Owns `listener`. */
  constructor(listener: UnixListener, deps: GiverDeps) {
    this.#listener = listener;
    this.#deps = deps;
    this.#running = this.#run();
  }

  /** Nothing is held any more: the successor hears so, if there is one. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener[Symbol.dispose]();
    await this.#deps.settle();
    this.#over.resolve();
    if (this.#state.kind === 'left') await Promise.race([this.#running, delay(this.#deps.clock, LAST_WORD_MS)]);
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#deps;
    for (;;) {
      try {
        const socket = await this.#listener.accept();
        if (socket === undefined) return;
        await this.#serve(socket);
      } catch (error) {
        log.warn?.('hand-over socket: accept failed', { error: toMeshError(error).message });
        await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
      }
    }
  }

  /** One heir, from its first word to its end. Never rejects. */
  async #serve(socket: UnixSocket): Promise<void> {
    using link = new HandOverLink(socket, this.#deps.clock);
    let result: HandOverResult = 'lost';
    try {
      if (socket.peer.uid !== this.#deps.uid) throw new MeshError('CV-HAND-OVER', 'the successor is of another user');
      await this.#talk(link);
    } catch (error) {
      const { code, message } = toMeshError(error);
      if (this.#state.kind === 'alone') result = 'refused';
      this.#deps.log.warn?.('hand-over broken off', { reason: code, error: message, pid: socket.peer.pid });
    }
    if (this.#state.kind !== 'left') this.#deps.onResult(result);
    await this.#apply({ type: 'lost' }, link);
    await this.#reporting;
  }

  async #talk(link: HandOverLink): Promise<void> {
    for (;;) {
      const message = await link.receive(this.#patienceMs);
      if (message === undefined) return;
      await this.#apply(requestOf(message), link);
    }
  }

  /** A successor that has the node may have no questions. */
  get #patienceMs(): number | undefined {
    if (this.#state.kind !== 'alone' && this.#state.offered !== undefined) return OFFER_TIMEOUT_MS;
    return this.#state.kind === 'left' ? undefined : SILENCE_TIMEOUT_MS;
  }

  async #apply(input: GiverInput, link: HandOverLink): Promise<void> {
    const { state, effect } = giverStep(this.#state, input);
    this.#state = state;
    if (effect !== undefined) await this.#perform(effect, link);
  }

  async #perform(effect: GiverEffect, link: HandOverLink): Promise<void> {
    const { log, build, servers, estate } = this.#deps;
    switch (effect.kind) {
      case 'welcome':
        log.info?.('successor greeted', { pid: link.peerPid, version: effect.version });
        await link.send({ type: 'welcome', version: effect.version, build, pid: process.pid });
        return;
      case 'refuse':
        await link.send({ type: 'refused', reason: effect.reason });
        throw new MeshError('CV-HAND-OVER', `successor refused: ${effect.reason}`);
      case 'yield-servers':
        this.#hasYielded = true;
        await servers.yield();
        await link.send({ type: 'yielded' });
        return;
      case 'tell':
        await this.#tell(link);
        return;
      case 'offer':
        await this.#offer(effect.pod, link);
        return;
      case 'offer-more':
        await this.#offerMore(effect.pod, link);
        return;
      case 'offer-claimed':
        await this.#offerClaimed(effect, link);
        return;
      case 'keep':
        await estate.get(effect.pod)?.keepOffer();
        return;
      case 'give':
        // Before the word: when it is lost, the heir lets go, and nobody carries what both could.
        estate.get(effect.pod)?.give();
        this.#moved += this.#offered;
        await link.send({ type: 'given' });
        return;
      case 'take-back':
        await this.#takeBack(effect);
        return;
      case 'leave':
        await this.#leave(link);
    }
  }

  async #tell(link: HandOverLink): Promise<void> {
    const legacy = await this.#deps.legacy();
    try {
      for (const part of certificateParts(legacy.certificates)) await link.send({ type: 'certificates', part });
      await link.send({ type: 'inherited' }, legacy.meshFd === undefined ? [] : [legacy.meshFd]);
    } finally {
      dropLegacy(legacy);
    }
  }

  async #offer(key: string, link: HandOverLink): Promise<void> {
    const { estate, counts } = this.#deps;
    this.#offered = 0;
    const pod = estate.get(key);
    const needs = boundedNeeds(await pod?.needs());
    const listeners = (await pod?.offer()) ?? [];
    for (const { port, fd } of listeners) await link.send({ type: 'listener', port }, [fd]);
    const sent = { listeners: listeners.length, connections: 0 };
    await link.send({ type: 'offered', ...sent, needs, held: counts().live, isLast: pod === undefined });
  }

  async #offerMore(key: string, link: HandOverLink): Promise<void> {
    const { estate, counts } = this.#deps;
    const { connections, isLast } = (await estate.get(key)?.offerMore()) ?? { connections: [], isLast: true };
    this.#offered = connections.length;
    for (const { message, fds } of packetsOf(connections)) await link.send(message, fds);
    const sent = { listeners: 0, connections: connections.length };
    await link.send({ type: 'offered', ...sent, held: counts().live, isLast });
  }

  async #offerClaimed(
    { pod, claim }: Extract<GiverEffect, { kind: 'offer-claimed' }>,
    link: HandOverLink,
  ): Promise<void> {
    const { estate, counts, claimBefore } = this.#deps;
    const found = (await estate.get(pod)?.offerClaimed(claim, () => claimBefore(pod, claim))) ?? 'nowhere';
    const connections = typeof found === 'object' ? [found] : [];
    this.#offered = connections.length;
    for (const { message, fds } of packetsOf(connections)) await link.send(message, fds);
    const sent = { listeners: 0, connections: connections.length, held: counts().live, isLast: true };
    await link.send({ type: 'offered', ...sent, ...(typeof found === 'string' && { missing: found }) });
  }

  /** What fails is tried again: a pod without listeners refuses its connections. */
  async #takeBack({ pods }: Extract<GiverEffect, { kind: 'take-back' }>): Promise<void> {
    const { servers, log } = this.#deps;
    log.warn?.('the successor is gone, its pods come back', { pods: pods.length });
    await Promise.all(pods.map((key) => this.#takePodBack(key)));
    if (this.#hasYielded) await this.#untilDone('servers', () => servers.resume());
    this.#hasYielded = false;
  }

  async #takePodBack(key: string): Promise<void> {
    await this.#untilDone(key, async () => await this.#deps.estate.get(key)?.takeBack());
  }

  async #untilDone(what: string, work: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await work();
        return;
      } catch (error) {
        this.#deps.log.warn?.('not taken back, trying again', { what, error: toMeshError(error).message });
        await new Promise<void>((resolve) => this.#deps.clock.after(RETRY_MS, resolve));
      }
    }
  }

  async #leave(link: HandOverLink): Promise<void> {
    const { log, lock, counts, clock, onResult, onLeft, settle } = this.#deps;
    // What workers have given away counts as theirs until they have said so.
    await settle();
    const { live } = counts();
    // No return from here: even when the heir dies before it reads this, the next agent finds the node free.
    this.#listener[Symbol.dispose]();
    log.info?.('handed over', { pid: link.peerPid, moved: this.#moved, held: live });
    await link.send({ type: 'left', held: live }, [lock.fd]).catch((error: unknown) => {
      log.warn?.('the successor is gone, the next agent finds the node free', { error: toMeshError(error).message });
    });
    // The lock is held as long as anybody has it open.
    lock[Symbol.dispose]();
    onResult('complete');
    onLeft();
    const leftAtMs = clock.wallMs();
    const own = (): HeldAgent => this.#held(live, leftAtMs);
    const agents = (): readonly HeldAgent[] => [own(), ...this.#deps.predecessors()];
    this.#reporting = reportHeld(link, { clock, agents, over: this.#over.promise }).then(() => {
      const { held, cut } = own();
      log.info?.('hand-over is over', { moved: this.#moved, held, cut, heldForMs: clock.wallMs() - leftAtMs });
      // Nobody need wait for further requests.
      link[Symbol.dispose]();
    });
  }

  #held(held: number, leftAtMs: number): HeldAgent {
    const { build, counts, holdMs } = this.#deps;
    const { live, cut } = counts();
    return { pid: process.pid, build, held, cut, connections: live, leftAtMs, endsAtMs: leftAtMs + holdMs };
  }
}

function requestOf(message: FdMessage) {
  using received = message;
  return decodeRequest(received.data);
}

/** What fits one message; the rest is dialled when it is needed. */
const MAX_NEEDS_CHARS = 32 * 1024;

function boundedNeeds({ out, in: incoming }: TunnelNeeds = NO_NEEDS): TunnelNeeds {
  let chars = 0;
  return { out: out.filter((need) => (chars += JSON.stringify(need).length) <= MAX_NEEDS_CHARS), in: incoming };
}
