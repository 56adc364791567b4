/** The right to serve this node: the run lock, taken at once when it is free, or from the agent that has it, pod after pod. */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { delay, withDeadline } from '../../base/clock.ts';
import { MeshError, toMeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { NO_NEEDS, type TunnelNeeds } from '../../proxy/inheritance.ts';
import type { ClaimedStream, StreamClaim } from '../../proxy/settings.ts';
import { adoptRunLock, type RunLock, takeRunLock } from '../../sys/run-lock.ts';
import type { Sys } from '../../sys/sys.ts';
import type { UnixSocket } from '../../sys/unix-contract.ts';
import type { HandOverResult } from '../../telemetry/metrics-hand-over.ts';
import type { EstatePod } from './estate.ts';
import { Heir, type TakenListeners } from './heir.ts';
import { dropLegacy, type Legacy, NO_LEGACY } from './legacy.ts';
import { HandOverLink } from './link.ts';
import { Predecessors } from './predecessors.ts';
import { type HeldAgent, SOCKET_FILE } from './protocol.ts';

/** The lock of an agent that was killed is free when the kernel has closed its files, for which it needs a CPU. */
const LOCK_LOOKS = 100;
const LOCK_POLL_MS = 50;
/** Longest the other agent is kept for pods that cannot be captured; they are tried on without it. */
const READY_WAIT_MS = 30_000;

/** Clients that look for their streams at once; more ask again. Each question waits for its turn among those for connections. */
const MAX_CLAIMS = 64;

const NOTHING: TakenListeners = { listeners: [], needs: NO_NEEDS };

export interface LeaseOptions {
  readonly runDir: string;
  readonly isTakeOver: boolean;
  readonly build: string;
}

export interface LeaseDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly log: Logger;
}

export class NodeLease implements Disposable {
  readonly #options: LeaseOptions;
  readonly #deps: LeaseDeps;
  #lock: RunLock | undefined;
  #heir: Heir | undefined;
  /** Pods asked for: one that could not be served is tried again without what it had. */
  readonly #taken = new Set<string>();
  /** Pods whose connections are being taken; and those of which all that can move at once is taken. */
  readonly #following = new Set<Promise<void>>();
  readonly #followed = new Set<string>();
  #claims = 0;
  #legacy = NO_LEGACY;
  #predecessors: Predecessors | undefined;
  #recovery: Promise<void> | undefined;
  #isGivenUp = false;
  readonly #lost = Promise.withResolvers<void>();

  private constructor(options: LeaseOptions, deps: LeaseDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Rejects with `CV-AGENT-RUNNING` when an agent serves the node that is not to be replaced, with `CV-HAND-OVER` when it refuses. */
  static async take(options: LeaseOptions, deps: LeaseDeps): Promise<NodeLease> {
    const lease = new NodeLease(options, deps);
    try {
      lease.#lock = takeRunLock(options.runDir);
    } catch (error) {
      const isTaken = toMeshError(error).code === 'CV-AGENT-RUNNING';
      if (!isTaken || !options.isTakeOver) throw error;
      await lease.#greet(lease.#connect());
    }
    return lease;
  }

  /** What the agent before us knew, each time it is asked for given once: the caller's. */
  takeLegacy(): Legacy {
    const legacy = this.#legacy;
    this.#legacy = NO_LEGACY;
    return legacy;
  }

  /** The run lock, once the node is ours. */
  get lock(): RunLock {
    if (this.#lock === undefined) throw new MeshError('CV-BUG', 'the node is not ours yet');
    return this.#lock;
  }

  /** Listeners of a pod from the agent before us, given once; none when there is none, or it has ended. */
  async inherit(pod: string): Promise<TakenListeners> {
    if (this.#taken.has(pod)) return NOTHING;
    this.#taken.add(pod);
    return await this.#from((heir) => heir.take(pod), NOTHING);
  }

  /** Gives `proxy` the connections of a pod whose listeners were inherited, a few at a time. Never rejects. */
  async follow(pod: string, proxy: Pick<EstatePod, 'warm' | 'adopt'>, needs: TunnelNeeds): Promise<void> {
    if (this.#heir === undefined) return;
    const done = Promise.withResolvers<void>();
    this.#following.add(done.promise);
    try {
      await proxy.warm(needs);
      for (let isLast = false; !isLast; ) {
        const part = await this.#from((heir) => heir.takeMore(pod), { connections: [], isLast: true });
        await proxy.adopt(part.connections);
        ({ isLast } = part);
      }
    } catch (error) {
      this.#deps.log.error?.('connections of a pod were not taken over', { pod, error: toMeshError(error).message });
    } finally {
      this.#following.delete(done.promise);
      this.#followed.add(pod);
      done.resolve();
    }
  }

  /** A suspended stream of a pod that its client looks for here, from the agents before us. Never rejects. */
  async claim(pod: string | undefined, claim: StreamClaim): Promise<ClaimedStream> {
    if (pod === undefined || (this.#heir ?? this.#predecessors) === undefined) return 'nowhere';
    if (this.#claims >= MAX_CLAIMS) return 'later';
    this.#claims += 1;
    try {
      return await this.#claim(pod, { ...claim, question: whoAsks(claim.question) });
    } finally {
      this.#claims -= 1;
    }
  }

  async #claim(pod: string, asked: StreamClaim): Promise<ClaimedStream> {
    if (this.#heir === undefined) return (await this.#predecessors?.claim(pod, asked)) ?? 'nowhere';
    // It comes by itself.
    if (!this.#followed.has(pod)) return 'later';
    return await this.#from<ClaimedStream>((heir) => heir.claim(pod, asked), 'later').catch(() => 'later');
  }

  /** Runs `bind`; when a port is taken, once more after the agent before us has closed its servers. */
  async bindServers(bind: () => Promise<void>): Promise<void> {
    try {
      await bind();
    } catch (error) {
      if (this.#heir === undefined || toMeshError(error).code !== 'CV-BIND') throw error;
      await this.#heir.yieldServers().catch((failure: unknown) => this.#recover(toMeshError(failure)));
      await bind();
    }
  }

  /**
   * Makes the node ours for good, once `ready` settles. Rejects when the agent before us serves on. `undefined`: there was
   * none.
   */
  async settle(ready: Promise<void>): Promise<HandOverResult | undefined> {
    if (this.#heir === undefined && this.#recovery === undefined) return undefined;
    const late = (): MeshError => new MeshError('CV-HAND-OVER', 'not all pods could be captured');
    const readySoon = withDeadline(ready, this.#deps.clock, READY_WAIT_MS, late).catch(() => undefined);
    await Promise.race([readySoon, this.#lost.promise]);
    await Promise.race([this.#allFollowed(), this.#lost.promise]);
    const heir = this.#heir;
    if (heir === undefined) {
      if (!this.#isGivenUp) await this.#recovery;
      return 'lost';
    }
    try {
      this.#lock = adoptRunLock(await heir.commit(), this.#options.runDir);
    } catch (error) {
      await this.#recover(toMeshError(error));
      return 'lost';
    }
    this.#heir = undefined;
    this.#predecessors = new Predecessors(heir.link, { ...this.#deps, canClaim: heir.canClaim });
    this.#deps.log.info?.('took the node over', { ...heir.counts });
    return 'complete';
  }

  /** The node is another agent's still. */
  get isTaking(): boolean {
    return this.#heir !== undefined;
  }

  /** We stop before the node is ours: the agent before us takes its pods back at once, not when we have drained. */
  giveUp(): void {
    if (this.#heir === undefined) return;
    this.#isGivenUp = true;
    this.#heir[Symbol.dispose]();
    this.#heir = undefined;
    this.#lost.resolve();
  }

  /** Agents before us that still carry connections, the latest first. */
  get predecessors(): readonly HeldAgent[] {
    return this.#predecessors?.agents ?? [];
  }

  [Symbol.dispose](): void {
    dropLegacy(this.takeLegacy());
    this.#heir?.[Symbol.dispose]();
    this.#predecessors?.[Symbol.dispose]();
    this.#lock?.[Symbol.dispose]();
  }

  /** However long it takes: what is left behind half-way is lost. */
  async #allFollowed(): Promise<void> {
    while (this.#following.size > 0) await Promise.all(this.#following);
  }

  /** What the agent before us answers, or `nothing` when it has ended. */
  async #from<Answer>(ask: (heir: Heir) => Promise<Answer>, nothing: Answer): Promise<Answer> {
    if (this.#heir === undefined) return nothing;
    try {
      return await ask(this.#heir);
    } catch (error) {
      await this.#recover(toMeshError(error));
      return nothing;
    }
  }

  async #greet(link: HandOverLink): Promise<void> {
    const { clock, log } = this.#deps;
    try {
      this.#heir = await Heir.greet(link, clock, this.#options.build);
      this.#legacy = await this.#heir.inherit();
      log.info?.('taking the node over from the running agent');
    } catch (error) {
      await this.#recover(toMeshError(error));
    }
  }

  /** The exchange broke off: when the other agent is dead its lock is free and the node ours; else it serves on, and we end. */
  #recover(cause: MeshError): Promise<void> {
    if (this.#isGivenUp) return Promise.reject(cause);
    this.#recovery ??= this.#takeFreeLock(cause);
    this.#lost.resolve();
    return this.#recovery;
  }

  async #takeFreeLock(cause: MeshError): Promise<void> {
    const { clock, log } = this.#deps;
    this.#heir?.[Symbol.dispose]();
    this.#heir = undefined;
    for (let look = 1; ; look++) {
      try {
        this.#lock = takeRunLock(this.#options.runDir);
        log.warn?.('the running agent ended during the hand-over, the rest starts anew', { error: cause.message });
        return;
      } catch {
        if (look >= LOCK_LOOKS) throw cause;
      }
      await delay(clock, LOCK_POLL_MS);
    }
  }

  #connect(): HandOverLink {
    const { clock } = this.#deps;
    const path = join(this.#options.runDir, SOCKET_FILE);
    const owner = lstatSync(path, { throwIfNoEntry: false })?.uid;
    const uid = process.getuid?.();
    if (owner === undefined)
      throw noSocket(path, 'there is none: it was started without hand-over, or is older than it');
    if (owner !== uid) throw noSocket(path, `it belongs to user ${owner}`);
    const socket = this.#reach(path);
    if (socket.peer.uid === uid) return new HandOverLink(socket, clock);
    socket[Symbol.dispose]();
    throw noSocket(path, `user ${socket.peer.uid} listens there`);
  }

  #reach(path: string): UnixSocket {
    try {
      return this.#deps.sys.connectUnix(path, 'seqpacket');
    } catch (error) {
      throw noSocket(path, toMeshError(error).message);
    }
  }
}

function noSocket(path: string, why: string): MeshError {
  return new MeshError('CV-HAND-OVER', `the running agent cannot be asked at ${path}: ${why}`, { path });
}

/** All that decides whose a stream is. */
function whoAsks({ authority, peerIdentity }: StreamClaim['question']): StreamClaim['question'] {
  return { authority, ...(peerIdentity !== undefined && { peerIdentity }) };
}
