/** The agent of a node while it serves: waits for a successor, and gives it all it has (`README.md`). One at a time. */
import type { Clock } from '../../base/clock.ts';
import { MeshError, toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { RunLock } from '../../sys/run-lock.ts';
import type { FdMessage, UnixListener, UnixSocket } from '../../sys/unix-contract.ts';
import type { HandOverResult } from '../../telemetry/metrics-hand-over.ts';
import type { Estate } from './estate.ts';
import { type GiverEffect, type GiverInput, type GiverState, giverStep } from './giver-state.ts';
import { HandOverLink } from './link.ts';
import { decodeRequest, inPackets, OFFER_TIMEOUT_MS, SILENCE_TIMEOUT_MS } from './protocol.ts';

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
  /** Connections that are open here. */
  readonly liveCount: () => number;
  readonly servers: { yield(): Promise<void>; resume(): Promise<void> };
  /** How each exchange went. */
  readonly onResult: (result: HandOverResult) => void;
  /** The heir has the node: hold what could not move, then end. Called once. */
  readonly onLeft: () => void;
}

export class Giver implements Disposable {
  readonly #deps: GiverDeps;
  readonly #listener: UnixListener;
  #state: GiverState = { kind: 'alone' };
  #hasYielded = false;

  /** Owns `listener`. */
  constructor(listener: UnixListener, deps: GiverDeps) {
    this.#listener = listener;
    this.#deps = deps;
    void this.#run();
  }

  [Symbol.dispose](): void {
    this.#listener[Symbol.dispose]();
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#deps;
    for (;;) {
      try {
        const socket = await this.#listener.accept();
        if (socket === undefined) return;
        await this.#serve(socket);
      } catch (error) {
        log.warn?.('hand-over socket: accept failed', { reason: toMeshError(error).message });
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
      this.#deps.log.warn?.('hand-over broken off', { code, reason: message, pid: socket.peer.pid });
    }
    this.#deps.onResult(this.#state.kind === 'left' ? 'complete' : result);
    await this.#apply({ type: 'lost' }, link);
  }

  async #talk(link: HandOverLink): Promise<void> {
    for (;;) {
      const isOffering = this.#state.kind === 'giving' && this.#state.offered !== undefined;
      const message = await link.receive(isOffering ? OFFER_TIMEOUT_MS : SILENCE_TIMEOUT_MS);
      if (message === undefined) return;
      await this.#apply(requestOf(message), link);
      if (this.#state.kind === 'left') return;
    }
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
      case 'offer':
        await this.#offer(effect.pod, link);
        return;
      case 'offer-more':
        await this.#offerMore(effect.pod, link);
        return;
      case 'give':
        // Before the word: when it is lost, the heir lets go, and nobody carries what both could.
        estate.get(effect.pod)?.give();
        await link.send({ type: 'given' });
        return;
      case 'take-back':
        await this.#takeBack(effect);
        return;
      case 'leave':
        await this.#leave(link);
    }
  }

  async #offer(key: string, link: HandOverLink): Promise<void> {
    const { estate, liveCount } = this.#deps;
    const pod = estate.get(key);
    const listeners = (await pod?.offer()) ?? [];
    for (const { port, fd } of listeners) await link.send({ type: 'listener', port }, [fd]);
    const counts = { listeners: listeners.length, connections: 0, held: liveCount() };
    await link.send({ type: 'offered', ...counts, isLast: pod === undefined });
  }

  async #offerMore(key: string, link: HandOverLink): Promise<void> {
    const { estate, liveCount } = this.#deps;
    const { connections, isLast } = (await estate.get(key)?.offerMore()) ?? { connections: [], isLast: true };
    for (const part of inPackets(connections)) {
      const fds = part.flatMap(({ sockets }) => [sockets.downstream, sockets.upstream]);
      await link.send(
        { type: 'connections', connections: part.map(({ start, pausedAtMs }) => ({ start, pausedAtMs })) },
        fds,
      );
    }
    const counts = { listeners: 0, connections: connections.length, held: liveCount() };
    await link.send({ type: 'offered', ...counts, isLast });
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
        this.#deps.log.warn?.('not taken back, trying again', { what, reason: toMeshError(error).message });
        await new Promise<void>((resolve) => this.#deps.clock.after(RETRY_MS, resolve));
      }
    }
  }

  async #leave(link: HandOverLink): Promise<void> {
    const { log, lock, liveCount, onLeft } = this.#deps;
    // No return from here: even when the heir dies before it reads this, the next agent finds the node free.
    this[Symbol.dispose]();
    try {
      log.info?.('handed over', { pid: link.peerPid, held: liveCount() });
      await link.send({ type: 'left', held: liveCount() }, [lock.fd]);
    } finally {
      // The lock is held as long as anybody has it open.
      lock[Symbol.dispose]();
      onLeft();
    }
  }
}

function requestOf(message: FdMessage) {
  using received = message;
  return decodeRequest(received.data);
}
