/** One application connection of a pod: it ends exactly once, whoever ends it, with its record closed. */
import type { Clock } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import type { Obstacle } from '../telemetry/connection-view.ts';
import type { ConnectionRecord, ConnectionStart } from '../telemetry/traffic.ts';
import type { ByteStream } from '../tunnel/byte-stream.ts';
import type { LoopShare } from '../tunnel/loop-share.ts';
import { type IdleLooks, type IdleSweep, Relay, type RelayOwner } from '../tunnel/relay.ts';
import type { ShortCutEnd } from './departure.ts';
import type { InheritedConnection, InheritedPair, InheritedStream } from './inheritance.ts';
import { refusalOf } from './operator-text.ts';
import type { ResumableTunnel } from './resumable-tunnel.ts';

export interface MoveLimits {
  /** For what was read to be passed on. */
  readonly flushMs: number;
  /** For the peer of a tunnel to stop, too. */
  readonly suspendMs: number;
}

type Moved = Pick<InheritedPair, 'sockets' | 'outbound'> | Pick<InheritedStream, 'socket' | 'tunnel'>;

/** Who keeps the open ones. */
interface Registry {
  forget(connection: Connection): void;
}

export interface ConnectionParts {
  readonly id: string;
  readonly downstream: ByteStream;
  readonly record: ConnectionRecord;
  readonly isInbound: boolean;
  /** Of the workload it belongs to. */
  readonly share: LoopShare;
  /** Called once, after the record was closed. */
  readonly onEnd: (id: string) => void;
}

/** One application connection, from its verdict to its end. */
export class Connection implements RelayOwner {
  readonly id: string;
  readonly #registry: Registry;
  readonly #downstream: ByteStream;
  readonly #record: ConnectionRecord;
  readonly #isInbound: boolean;
  readonly #share: LoopShare;
  readonly #onEnd: (id: string) => void;
  #relay: Relay | undefined;
  /** The other one of a same-node short cut, which has the same relay. */
  #partner: Connection | undefined;
  /** Absent until the first sweep. */
  #looks: IdleLooks | undefined;
  #tunnel: ResumableTunnel | undefined;
  #isOver = false;
  #cutFor: MeshError | undefined;

  /** @internal `Connections.open` makes them. */
  constructor(registry: Registry, { id, downstream, record, isInbound, share, onEnd }: ConnectionParts) {
    this.id = id;
    this.#registry = registry;
    this.#downstream = downstream;
    this.#record = record;
    this.#isInbound = isInbound;
    this.#share = share;
    this.#onEnd = onEnd;
  }

  /** The relay, once there is an upstream: the handle for quiescing and idle checks. */
  get relay(): Relay | undefined {
    return this.#relay;
  }

  /** Present when one side is a stream that can leave its tunnel. */
  get tunnel(): ResumableTunnel | undefined {
    return this.#tunnel;
  }

  /** What would keep it in this process if another one took over now. */
  get obstacle(): Obstacle | undefined {
    const tunnel = this.#tunnel;
    if (this.#relay === undefined || tunnel?.isAsking === true) return 'dialling';
    if (tunnel === undefined) return this.#relay.obstacle;
    return tunnel.isMovable ? this.#relay.obstacleBeside(tunnel.stream) : 'half-closed';
  }

  /** Since its last byte. */
  get idleMs(): number {
    return this.#record.idleMs;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /**
   * Starts relaying. When the connection was closed while its upstream was dialled, the upstream is closed too. `tunnel` is
   * the owner of one of the two streams, when that can leave its tunnel.
   */
  join(upstream: ByteStream, tunnel?: ResumableTunnel): void {
    if (this.#isOver) {
      upstream.destroy(this.#cutFor);
      return;
    }
    this.#tunnel = tunnel;
    this.#relay = new Relay(this.#downstream, upstream, this);
    this.#relay.start();
  }

  addClientBytes(bytes: number): void {
    if (this.#isInbound) this.#share.bytesIn += bytes;
    else this.#share.bytesOut += bytes;
    this.#record.addClientBytes(bytes);
  }

  addServerBytes(bytes: number): void {
    if (this.#isInbound) this.#share.bytesOut += bytes;
    else this.#share.bytesIn += bytes;
    this.#record.addServerBytes(bytes);
  }

  relayDone(error: MeshError | undefined): void {
    this.#finish(error);
  }

  /**
   * Starts relaying for two: out of one pod of this node, and into another. Whichever is closed ends both; the other one's
   * end is an ordinary one then, as that of a connection whose peer was cut.
   */
  static joinBoth(outbound: Connection, inbound: Connection, upstream: ByteStream): void {
    if (outbound.#isOver || inbound.#isOver) {
      const error = new MeshError('CV-TUNNEL-CLOSED', 'the other end gave up before there was a connection');
      upstream.destroy(error);
      for (const one of [outbound, inbound]) one.close(error);
      return;
    }
    const both = [outbound, inbound];
    const relay = new Relay(outbound.#downstream, upstream, {
      addClientBytes: (bytes) => {
        for (const one of both) one.addClientBytes(bytes);
      },
      addServerBytes: (bytes) => {
        for (const one of both) one.addServerBytes(bytes);
      },
      relayDone: (error) => {
        for (const one of both) one.#finish(one.#isCutByPartner ? undefined : error);
      },
    });
    outbound.#joined(relay, inbound);
    inbound.#joined(relay, outbound);
    relay.start();
  }

  #joined(relay: Relay, partner: Connection): void {
    this.#relay = relay;
    this.#partner = partner;
  }

  get #isCutByPartner(): boolean {
    const partner = this.#partner;
    return this.#cutFor === undefined && partner !== undefined && partner.#cutFor !== undefined;
  }

  /** Another process or thread could go on with it; of a short cut, when `shortCuts` is the end of it that this is. */
  isMovable(shortCuts: ShortCutEnd | undefined): boolean {
    if (this.#partner !== undefined && shortCuts !== this.#end) return false;
    return this.#tunnel?.isMovable ?? this.#relay?.isMovable === true;
  }

  get #end(): ShortCutEnd {
    return this.#isInbound ? 'called' : 'caller';
  }

  /** True when nothing moved since the previous call for `sweep`. */
  takeIdle(sweep: IdleSweep): boolean {
    const relay = this.#relay;
    if (relay === undefined || (sweep === 'half-closed' && !relay.isHalfClosed)) return false;
    this.#looks ??= {};
    return relay.takeIdle(sweep, this.#looks);
  }

  /** Ends the connection now, for `error`. Idempotent. */
  close(error: MeshError): void {
    if (this.#isOver) return;
    this.#cutFor ??= error;
    if (this.#relay !== undefined) {
      this.#relay.close(error);
      return;
    }
    this.#finish(error);
    this.#downstream.destroy(error);
  }

  /**
   * Gives both sockets away for another process to go on with, when all that was read is passed on in time. This
   * connection is over then. `undefined`: it cannot move, and goes on here.
   */
  async move(clock: Clock, limits: MoveLimits): Promise<InheritedConnection | undefined> {
    const relay = this.#relay;
    if (relay === undefined || this.#isOver) return undefined;
    const pausedAtMs = clock.wallMs();
    await relay.quiesce(clock, limits.flushMs);
    const moved = this.#isOver ? undefined : await this.#detach(relay, clock, limits);
    if (moved === undefined) {
      relay.unquiesce();
      return undefined;
    }
    const partner = this.#partner;
    if (partner === undefined) return { ...moved, start: this.#leave(), pausedAtMs };
    const [outbound, inbound] = this.#isInbound ? [partner, this] : [this, partner];
    return { ...moved, outbound: outbound.#leave(), start: inbound.#leave(), pausedAtMs };
  }

  #leave(): ConnectionStart {
    this.#isOver = true;
    this.#registry.forget(this);
    const start = this.#record.move();
    this.#onEnd(this.id);
    return start;
  }

  async #detach(relay: Relay, clock: Clock, { suspendMs }: MoveLimits): Promise<Moved | undefined> {
    const tunnel = this.#tunnel;
    if (tunnel === undefined) {
      const sockets = relay.detach();
      return sockets && { sockets };
    }
    if (relay.obstacleBeside(tunnel.stream) !== undefined) return undefined;
    if (!(await tunnel.suspend(clock, suspendMs))) return undefined;
    const socket = this.#isOver ? undefined : relay.detachFrom(tunnel.stream);
    if (socket !== undefined) return { socket, tunnel: tunnel.take() };
    tunnel.stream.release();
    return undefined;
  }

  #finish(error: MeshError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#registry.forget(this);
    this.#record.close(error === undefined ? undefined : refusalOf(error));
    this.#onEnd(this.id);
  }
}
