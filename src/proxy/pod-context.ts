/** What the listeners of one pod share: its namespace, its open connections, how to dial, how to refuse. */
import type net from 'node:net';
import { MeshError, toMeshError } from '../base/errors.ts';
import { type HostPort, ipFamily } from '../base/ip.ts';
import type { ConnectionLabels, InboundQuestion, InboundVerdict, Refusal } from '../model/verdict.ts';
import type { Arrival, SocketEnds } from '../sys/arrivals.ts';
import type { Netns } from '../sys/sys.ts';
import { type DialCodes, type Dialled, dialTcpSpoofed, socketFd } from '../sys/tcp.ts';
import type { ConnectionStart } from '../telemetry/traffic.ts';
import type { ByteStream } from '../tunnel/byte-stream.ts';
import type { LoopShare } from '../tunnel/loop-share.ts';
import { SocketStream } from '../tunnel/socket-stream.ts';
import { Admission } from './admission.ts';
import type { Connection } from './connection.ts';
import { Connections } from './connections.ts';
import { refusalOf } from './operator-text.ts';
import { ParkedStreams } from './parked-streams.ts';
import type { ProxyDeps, ProxySettings } from './settings.ts';

export interface ProxyPod {
  readonly uid: string;
  readonly netns: Netns;
  /**
   * The pod of the agent itself: nothing is captured in its netns, so it has the HBONE listener only, its sockets are not
   * marked, and what it serves sees its own address.
   */
  readonly isAgent?: boolean | undefined;
  /** What of it this thread serves; another one of this process does the rest. Default: all. */
  readonly serves?: ServedPart | undefined;
}

/** `nothing`: it is there for short cuts of other pods alone. */
export type ServedPart = 'all' | 'connections' | 'dns' | 'nothing';

export function servesConnections({ serves = 'all' }: Pick<ProxyPod, 'serves'>): boolean {
  return serves === 'all' || serves === 'connections';
}

export type Direction = 'inbound' | 'outbound';

export interface Ends {
  readonly peer: HostPort;
  readonly local: HostPort;
}

/** By profile: a connection that is accepted, says nothing and is dropped, with its log line. */
export const ARRIVAL_MS = 0.06;
/** Node answers a greeting before it tells of anything: a key exchange and a signature. */
export const GREETING_MS = 1;
/** Node verifies the chain of the peer before it tells that a handshake is done; by profile, ECDSA P-256. */
export const HANDSHAKE_END_MS = 0.5;

const TUNNEL_CODES = { timeout: 'CV-TUNNEL-TIMEOUT', refused: 'CV-TUNNEL-REFUSED' } as const;

/** A connection that is not carried. With `labels` it is counted and logged in full, without as `connection failed`. */
export interface Refused {
  readonly start: Omit<ConnectionStart, 'labels' | 'podUid'>;
  readonly refusal: Refusal;
  readonly labels?: ConnectionLabels | undefined;
}

export class PodContext {
  readonly pod: ProxyPod;
  readonly settings: ProxySettings;
  readonly deps: ProxyDeps;
  readonly connections = new Connections();
  /** Of the event loop: everything that is done for this pod says so. */
  readonly share: LoopShare;
  readonly parked = new ParkedStreams();
  /** What is new asks here first. */
  readonly admission: Admission;
  /** One function for all sockets, each of which closes once. */
  readonly #letGo = {
    source: (): void => this.#closed('source'),
    destination: (): void => this.#closed('destination'),
  };
  /** The `onEnd` of a connection that was judged inbound. */
  readonly release = (id: string): void => this.deps.verdicts.release(id);
  readonly #idPrefix: string;
  #lastId = 0;
  #isUnspoofedSaid = false;

  constructor(pod: ProxyPod, settings: ProxySettings, deps: ProxyDeps) {
    this.pod = pod;
    this.settings = settings;
    this.deps = deps;
    this.share = deps.loop.open();
    const held = (): number => this.connections.held;
    this.admission = new Admission(settings.budget, { clock: deps.clock, share: this.share, held });
    this.#idPrefix = deps.random.hex(4);
  }

  /** What its sockets carry, so that the rules in the pod let them pass; as an option of them. */
  get mark(): { readonly mark?: number } {
    const { mark } = this.settings;
    return mark === undefined || this.pod.isAgent === true ? {} : { mark };
  }

  /** Unique in this process; unguessable enough not to collide with another agent's in one log. */
  nextId(): string {
    this.#lastId += 1;
    return `${this.#idPrefix}-${this.#lastId.toString(36)}`;
  }

  /** Counts the socket as held until it closes. */
  hold(socket: Pick<Arrival, 'on'>, direction: Direction): void {
    const { telemetry } = this.deps;
    const reporter = direction === 'outbound' ? 'source' : 'destination';
    telemetry.socketOpened(reporter);
    socket.on('close', this.#letGo[reporter]);
  }

  #closed(reporter: 'source' | 'destination'): void {
    this.share.enter();
    this.deps.telemetry.socketClosed(reporter);
    this.share.leave();
  }

  /** Both ends of an accepted socket, canonical. A client that has reset it already has an address all the same. */
  endsOf(socket: net.Socket): Ends | undefined {
    return this.endsNamed(socket, socketFd(socket));
  }

  /** The same of what Node calls its ends; `fd` is its descriptor, when it is known. */
  endsNamed({ localAddress, localPort, remoteAddress, remotePort }: SocketEnds, fd?: number): Ends | undefined {
    const local = hostPort(localAddress, localPort);
    const peer = hostPort(remoteAddress, remotePort);
    const known = peer ?? (fd === undefined ? undefined : this.deps.sys.peerAddress(fd));
    return local === undefined || known === undefined ? undefined : { peer: known, local };
  }

  /** To an application, or to whatever an application dialled: a socket for a relay. */
  async dial(address: HostPort, clientIp?: string): Promise<net.Socket> {
    const sourceIp = this.pod.isAgent === true ? undefined : clientIp;
    const { socket, isSpoofed } = await this.#dial(address, { isLending: true }, sourceIp);
    if (sourceIp !== undefined && !isSpoofed) this.#warnUnspoofed(sourceIp);
    return socket;
  }

  /** To the other end of a tunnel: a socket for TLS. */
  async dialTunnel(address: HostPort): Promise<net.Socket> {
    return (await this.#dial(address, { codes: TUNNEL_CODES })).socket;
  }

  async #dial(
    address: HostPort,
    limits: { readonly codes?: DialCodes; readonly isLending?: boolean },
    sourceIp?: string,
  ): Promise<Dialled> {
    this.connections.throwIfEnded();
    const { sys, clock } = this.deps;
    const { keepalive, connectTimeoutMs } = this.settings;
    const dialled = await dialTcpSpoofed(
      sys,
      this.pod.netns,
      address,
      {
        family: ipFamily(sourceIp ?? address.ip),
        ...this.mark,
        ...(keepalive !== undefined && { keepalive }),
        ...(sourceIp !== undefined && { transparentSourceIp: sourceIp }),
      },
      { ...limits, timeoutMs: connectTimeoutMs, clock },
    );
    this.share.enter();
    return dialled;
  }

  /** Once per pod: what the kernel refuses, it refuses for every connection. */
  #warnUnspoofed(sourceIp: string): void {
    if (this.#isUnspoofedSaid) return;
    this.#isUnspoofedSaid = true;
    this.deps.log.warn?.('the application sees our address instead of the client', { pod: this.pod.uid, sourceIp });
  }

  open(
    start: Omit<ConnectionStart, 'podUid'>,
    downstream: ByteStream,
    onEnd: (id: string) => void = nothing,
  ): Connection {
    const { share } = this;
    const { id, direction } = start;
    const record = this.deps.telemetry.open({ ...start, podUid: this.pod.uid });
    return this.connections.open({ id, downstream, record, isInbound: direction === 'inbound', share, onEnd });
  }

  /** A socket of this pod as one end of a relay. */
  streamOf(socket: net.Socket): SocketStream {
    return new SocketStream(socket, this.share);
  }

  refuse({ start, refusal, labels }: Refused): void {
    const { telemetry } = this.deps;
    const { direction, src, dst } = start;
    if (labels === undefined) telemetry.refused({ direction, podUid: this.pod.uid, src, dst, refusal });
    else telemetry.open({ ...start, labels, podUid: this.pod.uid }).close(refusal);
  }

  /** The verdict on an inbound connection, to be released when it is over; a refusal is released already. */
  async judge(question: Omit<InboundQuestion, 'podUid'>): Promise<InboundVerdict> {
    if (this.isFull) return this.tooMany();
    try {
      await this.turn();
    } catch (error) {
      return { kind: 'refuse', refusal: this.refusalFor(error) };
    }
    const verdict = await this.judgeOpen(question);
    try {
      await this.turnAgain();
      return verdict;
    } catch (error) {
      if (verdict.kind === 'accept') this.release(question.connectionId);
      return { kind: 'refuse', refusal: this.refusalFor(error) };
    }
  }

  /** The same for one that is open already: it does not wait for a turn, and no bound refuses it. */
  async judgeOpen(question: Omit<InboundQuestion, 'podUid'>): Promise<InboundVerdict> {
    const release = (): void => this.deps.verdicts.release(question.connectionId);
    const answer = this.deps.verdicts.inbound({ ...question, podUid: this.pod.uid });
    try {
      const verdict = await this.connections.arrive(answer);
      this.share.enter();
      if (verdict.kind === 'refuse') release();
      return verdict;
    } catch (error) {
      // An answer that comes after we gave up must not stay tracked.
      answer.then(release, release);
      return { kind: 'refuse', refusal: this.refusalFor(error) };
    }
  }

  /** Resolves when a new connection may begin. Rejects when too many wait, or when all are closed. */
  turn(): Promise<void> | undefined {
    this.share.connections += 1;
    const turn = this.admission.enter('connection');
    return turn && this.connections.arrive(turn);
  }

  /** The same for one that has begun. */
  turnAgain(): Promise<void> | undefined {
    const turn = this.share.turnAgain();
    return turn && this.connections.arrive(turn);
  }

  /** As `turn` for a handshake, which costs three times what a connection does. */
  handshakeTurn(): Promise<void> | undefined {
    this.share.handshakes += 1;
    const turn = this.admission.enter('handshake');
    return turn && this.connections.arrive(turn);
  }

  get isFull(): boolean {
    return this.connections.held >= this.settings.maxConnections;
  }

  tooMany(): { readonly kind: 'refuse'; readonly refusal: Refusal } {
    return { kind: 'refuse', refusal: refusalOf(this.limitError()) };
  }

  limitError(): MeshError {
    return new MeshError('CV-LIMIT', `this pod already has ${this.settings.maxConnections} connections`);
  }

  /** Turns what was caught into a refusal; defects are logged with their stack, once each. */
  refusalFor(caught: unknown): Refusal {
    const error = toMeshError(caught);
    if (error.fault === 'bug') this.deps.log.error?.('defect in a connection', { stack: String(error.stack) });
    return refusalOf(error);
  }
}

function hostPort(address: string | undefined, port: number | undefined): HostPort | undefined {
  return address === undefined || port === undefined ? undefined : { ip: kernelIp(address), port };
}

const MAPPED = '::ffff:';

/** The kernel writes addresses canonically; left to take off is what makes IPv4 IPv6, and the zone of a link-local one. */
function kernelIp(address: string): string {
  if (address.startsWith(MAPPED) && address.includes('.')) return address.slice(MAPPED.length);
  const zone = address.indexOf('%');
  return zone < 0 ? address : address.slice(0, zone);
}

function nothing(): void {}
