/**
 * Shared HBONE tunnels of one pod. A tunnel is reused for equal {identity to present, identities to expect, address}; the
 * source address is equal by construction, because a pool belongs to one pod.
 */
import type { Clock } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort } from '../base/ip.ts';

export interface TunnelKey {
  /** SPIFFE URI of the certificate to present. */
  readonly identity: string;
  /** SPIFFE URIs, one of which the peer must prove. */
  readonly expectedIdentities: readonly string[];
  readonly address: HostPort;
}

/** What the pool needs of an HTTP/2 session. */
export interface Tunnel<Request, Stream> {
  readonly activeStreams: number;
  /** SETTINGS_MAX_CONCURRENT_STREAMS of the peer, as far as known. */
  readonly peerMaxStreams: number;
  /** False once closed or after GOAWAY: streams in flight go on, new ones need another tunnel. */
  readonly isUsable: boolean;
  request(request: Request): Stream;
  destroy(error?: MeshError): void;
}

export interface PoolLimits {
  /** Streams we put on one tunnel. */
  readonly maxStreams: number;
  /** A tunnel without streams for this long is closed. */
  readonly idleReleaseMs: number;
  /** Tunnels of one pod; for more an idle one is closed, or the request refused with `CV-LIMIT`. */
  readonly maxTunnels: number;
}

export interface PoolDeps<Request, Stream> {
  readonly clock: Clock;
  /** Connects, shakes hands, starts HTTP/2. Must call `onClosed` once when a tunnel it returned is gone. */
  dial(key: TunnelKey, onClosed: () => void): Promise<Tunnel<Request, Stream>>;
}

export interface Opened<Request, Stream> {
  readonly stream: Stream;
  /** What carries it: to be avoided when it is asked again. */
  readonly tunnel: Tunnel<Request, Stream>;
}

/** A peer that says GOAWAY to each new tunnel must not make us dial for ever. */
const MAX_DIALS_PER_REQUEST = 3;
/** Tunnels of one key that are opened at once before there is a request. */
const MAX_WARMED = 16;

export class ClientPool<Request, Stream> {
  readonly #limits: PoolLimits;
  readonly #deps: PoolDeps<Request, Stream>;
  readonly #groups = new Map<string, Group<Request, Stream>>();
  /** Also tunnels that take no new streams but still carry old ones. */
  readonly #tunnels = new Map<Tunnel<Request, Stream>, { lastBusyMs: number }>();
  #dialing = 0;
  #sweep: Disposable | undefined;
  #isClosed = false;

  constructor(limits: PoolLimits, deps: PoolDeps<Request, Stream>) {
    this.#limits = limits;
    this.#deps = deps;
  }

  get tunnelCount(): number {
    return this.#tunnels.size;
  }

  /**
   * Opens a stream on a tunnel for `key` other than `avoided`, dialling when none has room. A burst on a cold key shares
   * one dial; when it fails every waiter gets its error at once. Never retries after a request was sent.
   */
  async request(key: TunnelKey, request: Request, avoided?: Tunnel<Request, Stream>): Promise<Opened<Request, Stream>> {
    const name = keyText(key);
    for (let dials = 0; dials < MAX_DIALS_PER_REQUEST; ) {
      if (this.#isClosed) throw new MeshError('CV-DRAIN', 'pool draining');
      const group = this.#group(name);
      const tunnel = group.pick(this.#limits.maxStreams, avoided);
      if (tunnel !== undefined) {
        this.#touch(tunnel);
        return { stream: tunnel.request(request), tunnel };
      }
      // Only a dial this request started, or joined with room left, counts as a try of its own.
      if (group.dialing === undefined) dials++;
      await this.#dial(group, key);
    }
    throw new MeshError('CV-TUNNEL-CLOSED', 'the peer closes every new tunnel at once', {
      address: formatHostPort(key.address),
    });
  }

  /**
   * Opens the tunnels that so many streams will need, all at once, beside those that are in use: they may be about to end.
   * Settles when they are there, or cannot be. Never rejects: whoever asks for a stream learns why.
   */
  async warm(key: TunnelKey, streams: number): Promise<void> {
    if (this.#isClosed) return;
    const group = this.#group(keyText(key));
    const { maxStreams } = this.#limits;
    const missing = Math.ceil((streams - group.unusedRoom(maxStreams)) / maxStreams);
    if (missing > 0) await this.#dial(group, key, Math.min(missing, MAX_WARMED)).catch(() => undefined);
    else this.#forgetIfEmpty(group);
  }

  /** Ends the tunnels that carry nothing. */
  releaseIdle(): void {
    for (const tunnel of [...this.#tunnels.keys()]) if (tunnel.activeStreams === 0) tunnel.destroy();
  }

  /** Ends every tunnel, with live streams too, and refuses further requests. */
  close(error: MeshError): void {
    this.#isClosed = true;
    this.#sweep?.[Symbol.dispose]();
    this.#sweep = undefined;
    for (const tunnel of [...this.#tunnels.keys()]) tunnel.destroy(error);
    this.#groups.clear();
  }

  #group(name: string): Group<Request, Stream> {
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = new Group(name);
      this.#groups.set(name, group);
    }
    return group;
  }

  #dial(group: Group<Request, Stream>, key: TunnelKey, count = 1): Promise<void> {
    group.dialing ??= this.#dialAll(group, key, count).finally(() => {
      group.dialing = undefined;
      this.#forgetIfEmpty(group);
    });
    return group.dialing;
  }

  /** Rejects when none comes. */
  async #dialAll(group: Group<Request, Stream>, key: TunnelKey, count: number): Promise<void> {
    const dials = Array.from({ length: count }, () => this.#dialOnce(group, key));
    await Promise.any(dials).catch((error: unknown) => {
      throw error instanceof AggregateError ? error.errors[0] : error;
    });
    await Promise.allSettled(dials);
  }

  async #dialOnce(group: Group<Request, Stream>, key: TunnelKey): Promise<void> {
    if (this.#tunnels.size + this.#dialing >= this.#limits.maxTunnels && !this.#releaseLongestIdle()) {
      throw new MeshError('CV-LIMIT', `this pod already holds ${this.#limits.maxTunnels} tunnels`);
    }
    this.#dialing++;
    try {
      let isGone = false;
      let opened: Tunnel<Request, Stream> | undefined;
      opened = await this.#deps.dial(key, () => {
        isGone = true;
        if (opened !== undefined) this.#drop(group, opened);
      });
      this.#adopt(group, opened, isGone);
    } finally {
      this.#dialing--;
    }
  }

  #adopt(group: Group<Request, Stream>, tunnel: Tunnel<Request, Stream>, isGone: boolean): void {
    if (this.#isClosed) {
      tunnel.destroy(new MeshError('CV-DRAIN', 'pool draining'));
      return;
    }
    if (isGone) return;
    group.tunnels.push(tunnel);
    this.#tunnels.set(tunnel, { lastBusyMs: this.#deps.clock.monotonicMs() });
    this.#startSweep();
  }

  #drop(group: Group<Request, Stream>, tunnel: Tunnel<Request, Stream>): void {
    group.remove(tunnel);
    this.#tunnels.delete(tunnel);
    this.#forgetIfEmpty(group);
  }

  #forgetIfEmpty(group: Group<Request, Stream>): void {
    const isEmpty = group.tunnels.length === 0 && group.dialing === undefined;
    if (isEmpty && this.#groups.get(group.name) === group) this.#groups.delete(group.name);
  }

  #touch(tunnel: Tunnel<Request, Stream>): void {
    const state = this.#tunnels.get(tunnel);
    if (state !== undefined) state.lastBusyMs = this.#deps.clock.monotonicMs();
  }

  #startSweep(): void {
    this.#sweep ??= this.#deps.clock.after(this.#limits.idleReleaseMs / 4, () => {
      this.#sweep = undefined;
      this.#releaseUnused();
      if (this.#tunnels.size > 0) this.#startSweep();
    });
  }

  /** A client of very many servers, such as a scraper, pays with a handshake and not with an error. */
  #releaseLongestIdle(): boolean {
    let longest: { tunnel: Tunnel<Request, Stream>; lastBusyMs: number } | undefined;
    for (const [tunnel, { lastBusyMs }] of this.#tunnels) {
      if (tunnel.activeStreams > 0 || lastBusyMs >= (longest?.lastBusyMs ?? Number.POSITIVE_INFINITY)) continue;
      longest = { tunnel, lastBusyMs };
    }
    longest?.tunnel.destroy();
    return longest !== undefined;
  }

  #releaseUnused(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const [tunnel, state] of [...this.#tunnels]) {
      if (tunnel.activeStreams > 0) state.lastBusyMs = nowMs;
      else if (nowMs - state.lastBusyMs >= this.#limits.idleReleaseMs) tunnel.destroy();
    }
  }
}

/** Tunnels of one key that may take new streams, and the dial that will add one. */
class Group<Request, Stream> {
  readonly name: string;
  readonly tunnels: Tunnel<Request, Stream>[] = [];
  dialing: Promise<void> | undefined;

  constructor(name: string) {
    this.name = name;
  }

  /** A tunnel with a free slot. One that drained below its limit is found again: nothing retires a good tunnel. */
  pick(maxStreams: number, avoided?: Tunnel<Request, Stream>): Tunnel<Request, Stream> | undefined {
    return this.tunnels.find((tunnel) => tunnel !== avoided && roomOf(tunnel, maxStreams) > 0);
  }

  /** For how many streams there is a place in tunnels that have none. */
  unusedRoom(maxStreams: number): number {
    const unused = this.tunnels.filter(({ activeStreams }) => activeStreams === 0);
    return unused.reduce((sum, tunnel) => sum + roomOf(tunnel, maxStreams), 0);
  }

  remove(tunnel: Tunnel<Request, Stream>): void {
    const at = this.tunnels.indexOf(tunnel);
    if (at >= 0) this.tunnels.splice(at, 1);
  }
}

function roomOf(
  {
    isUsable,
    activeStreams,
    peerMaxStreams,
  }: Pick<Tunnel<never, unknown>, 'isUsable' | 'activeStreams' | 'peerMaxStreams'>,
  maxStreams: number,
): number {
  return isUsable ? Math.max(0, Math.min(maxStreams, peerMaxStreams) - activeStreams) : 0;
}

/** Equal for requests that may share a tunnel. */
export function keyText(key: TunnelKey): string {
  return `${formatHostPort(key.address)} ${key.identity} ${key.expectedIdentities.join(' ')}`;
}
