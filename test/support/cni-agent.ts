/**
 * A CNI agent for tests that enrols pods as istio-cni does: it writes the redirection, then tells the proxy that
 * connected last, over a real SOCK_SEQPACKET socket; pods that leave are told to all.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createRedirection } from '../../src/capture/redirect.ts';
import { linuxSys } from '../../src/sys/linux.ts';
import type { Netns, Sys } from '../../src/sys/sys.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import type { UnixListener, UnixSocket } from '../../src/sys/unix-contract.ts';
import type { ZdsWorkload } from '../../src/wire/zds.ts';
import { CniConnection, packet, type ZdsPacket } from './cni-connection.ts';

/** istio-cni accepts five connections a second. */
const ACCEPT_PAUSE_MS = 200;
/** After so long without work istio-cni looks whether the proxy is still there. */
const IDLE_MS = 5_000;
/** What is written into a pod without annotations. */
export const CNI_RULES = { ipv4: true, ipv6: true, isIngressMode: false, rerouteInterfaces: [], dnsCapture: false };

export interface CniPod extends ZdsWorkload {
  readonly uid: string;
  /** Absent: the pod is known, its namespace is not, so that proxies are told to keep it. */
  readonly netnsPath?: string | undefined;
}

export interface CniOptions {
  /** Opens the namespaces of pods; default: those of this machine. */
  readonly sys?: Sys;
  /** Writes no rules: the proxy alone is looked at. */
  readonly isRuleless?: boolean;
  /** How long nothing is to be said before a connection is looked at; default 5 s. */
  readonly idleMs?: number;
}

/** A pod in the cache of the agent. */
export interface Known {
  readonly pod: CniPod;
  readonly netns: Netns | undefined;
}

export class CniAgent implements Disposable {
  readonly path: string;
  readonly #options: CniOptions;
  readonly #known = new Map<string, Known>();
  readonly #redirection = createRedirection(linuxSys);
  /** In the order they came: the last is the newest. */
  readonly #connections: CniConnection[] = [];
  readonly #arrivals = new Set<() => void>();
  readonly #handlers: ((socket: UnixSocket) => Promise<void>)[] = [];
  readonly #hijacked = new Set<UnixSocket>();
  #listener: UnixListener;
  #count = 0;

  constructor(path: string, options: CniOptions = {}) {
    this.path = path;
    this.#options = options;
    this.#listener = this.#listen();
  }

  /** How many proxies have connected so far. */
  get connectionCount(): number {
    return this.#count;
  }

  /** Adds go here. */
  get newest(): CniConnection | undefined {
    return this.#connections.at(-1);
  }

  /** Oldest first. */
  get connections(): readonly CniConnection[] {
    return this.#connections;
  }

  /** Resolves with the newest connection once more than `count` have come and it has acknowledged its snapshot. */
  async synced(count = 0): Promise<CniConnection> {
    for (;;) {
      const { newest } = this;
      if (this.#count <= count || newest === undefined) await this.#arrival();
      else if (await newest.synced.then(yes, no)) return newest;
      // It has ended; by the time that is known here it is off the list.
      else await newest.ended;
    }
  }

  /** The next connection is `handler`'s: this agent says nothing to it. */
  hijackNext(handler: (socket: UnixSocket) => Promise<void>): void {
    this.#handlers.push(handler);
  }

  /** Rejects, as istio-cni does, when there is no proxy or it says no; the pod stays known, so that asking again is right. */
  async enrol(pod: CniPod): Promise<void> {
    const known = await this.prepare(pod);
    const { newest } = this;
    if (newest === undefined) throw new Error('no ztunnel connection');
    await newest.send(addOrKeep(known));
  }

  /** As one enrolled before: its rules are written, and it is part of the next snapshot. */
  async prepare(pod: CniPod): Promise<Known> {
    const known = this.know(pod);
    if (known.netns !== undefined && this.#options.isRuleless !== true) {
      await this.#redirection.apply(known.netns, CNI_RULES);
    }
    return known;
  }

  /** The pod is part of the next snapshot; nobody is told now. */
  know(pod: CniPod): Known {
    const netns = pod.netnsPath === undefined ? undefined : (this.#options.sys ?? linuxSys).openNetns(pod.netnsPath);
    this.#known.get(pod.uid)?.netns?.[Symbol.dispose]();
    const known = { pod, netns };
    this.#known.set(pod.uid, known);
    return known;
  }

  /** The pod is no part of the next snapshot; nobody is told now. */
  forget(uid: string): void {
    this.#known.get(uid)?.netns?.[Symbol.dispose]();
    this.#known.delete(uid);
  }

  /** `isAlive`: the pod lives on without the mesh, so its rules are taken away; else they go with its namespace. */
  async unenrol(uid: string, isAlive = true): Promise<void> {
    const netns = this.#known.get(uid)?.netns;
    if (isAlive && netns !== undefined && this.#options.isRuleless !== true) await this.#redirection.remove(netns);
    this.forget(uid);
    await Promise.all(this.#connections.map((connection) => connection.tell(packet({ kind: 'del', uid }))));
  }

  /** Gone, with all its connections; rules stay in the pods. */
  stop(): void {
    this.#listener[Symbol.dispose]();
    for (const connection of this.#connections) connection.close();
    for (const socket of this.#hijacked) socket[Symbol.dispose]();
  }

  /** As a new process of the same DaemonSet, which finds the pods it had enrolled. */
  start(): void {
    this.#listener = this.#listen();
  }

  [Symbol.dispose](): void {
    this.stop();
    for (const { netns } of this.#known.values()) netns?.[Symbol.dispose]();
    this.#known.clear();
  }

  #listen(): UnixListener {
    const listener = linuxSys.listenUnix(this.path, { type: 'seqpacket' });
    void this.#accept(listener);
    return listener;
  }

  async #accept(listener: UnixListener): Promise<void> {
    for (;;) {
      const socket = await listener.accept();
      if (socket === undefined) return;
      const handler = this.#handlers.shift();
      if (handler === undefined) this.#register(socket);
      else void this.#hijack(socket, handler);
      await sleep(ACCEPT_PAUSE_MS);
    }
  }

  async #hijack(socket: UnixSocket, handler: (socket: UnixSocket) => Promise<void>): Promise<void> {
    using _socket = socket;
    this.#hijacked.add(socket);
    await handler(socket).finally(() => this.#hijacked.delete(socket));
  }

  /** Before its hello is read: from here on it is the newest. */
  #register(socket: UnixSocket): void {
    const snapshot = (): ZdsPacket[] => [...this.#known.values()].map(addOrKeep);
    const connection = new CniConnection(socket, {
      snapshot,
      clock: systemClock,
      idleMs: this.#options.idleMs ?? IDLE_MS,
    });
    // First in line for the end, so that who waits for it finds the list without it.
    void connection.ended.then(() => this.#connections.splice(this.#connections.indexOf(connection), 1));
    this.#connections.push(connection);
    this.#count += 1;
    for (const wake of this.#arrivals) wake();
  }

  #arrival(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#arrivals.add(resolve);
    return promise.finally(() => this.#arrivals.delete(resolve));
  }
}

function addOrKeep({ pod, netns }: Known): ZdsPacket {
  const { uid, name, namespace, serviceAccount } = pod;
  if (netns === undefined) return packet({ kind: 'keep', uid });
  return packet({ kind: 'add', uid, workload: { name, namespace, serviceAccount } }, netns.fd);
}

function yes(): boolean {
  return true;
}

function no(): boolean {
  return false;
}
