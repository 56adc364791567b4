/**
 * A node for ZDS tests without privileges: the real client and pod manager against the test CNI agent over a real socket.
 * Files stand for network namespaces; proxies are in the hands of the test.
 */
import { fstatSync, mkdtempSync, openSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../../src/base/clock.ts';
import { MeshError, messageOf } from '../../../src/base/errors.ts';
import type { LogFields, Logger } from '../../../src/base/log.ts';
import type { StopMode } from '../../../src/capture/capture-contract.ts';
import { PodManager } from '../../../src/capture/pods.ts';
import { zdsSource } from '../../../src/capture/zds-source.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns, Sys } from '../../../src/sys/sys.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { CniAgent } from '../../support/cni-agent.ts';
import { packet, type ZdsPacket } from '../../support/cni-connection.ts';

/** Files that stand for namespaces, by name; each is made when it is first asked for. */
export class NetnsFiles implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'culvert-zds-'));

  path(name: string): string {
    const path = join(this.folder, `netns-${name}`);
    writeFileSync(path, '', { flag: 'a' });
    return path;
  }

  /** A descriptor of the caller's own. */
  open(name: string): number {
    return openSync(this.path(name), 'r');
  }

  /** The name of what `path` leads to. */
  nameOf(path: string): string {
    return readlinkSync(path).replace(/^.*netns-/, '');
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }
}

export interface ZdsNodeOptions {
  readonly clock?: Clock;
  /** Nobody listens on the socket. */
  readonly isCniAway?: boolean;
}

interface Running {
  readonly uid: string;
  /** Name of the file that is its namespace. */
  readonly netns: string;
}

export class ZdsNode implements AsyncDisposable {
  readonly #files = new NetnsFiles();
  readonly socket = join(this.#files.folder, 'zds.sock');
  readonly cni: CniAgent;
  readonly proxy: ZdsProxy;
  readonly #fds: number[] = [];

  constructor(options: ZdsNodeOptions = {}) {
    this.cni = new CniAgent(this.socket, { sys: filesAsNetns, isRuleless: true, idleMs: 100 });
    if (options.isCniAway === true) this.cni.stop();
    this.proxy = new ZdsProxy(this.socket, options.clock);
  }

  /** A descriptor to send, closed with the node. */
  netnsFd(name: string): number {
    const fd = this.#files.open(name);
    this.#fds.push(fd);
    return fd;
  }

  add(uid: string, netns = uid): ZdsPacket {
    return packet({ kind: 'add', uid, workload: workloadOf(uid) }, this.netnsFd(netns));
  }

  /** The same as a pod that the CNI agent remembers. */
  pod(uid: string, netns = uid) {
    return { uid, ...workloadOf(uid), netnsPath: this.#files.path(netns) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    this.cni[Symbol.dispose]();
    for (const fd of this.#fds) linuxSys.close(fd);
    this.#files[Symbol.dispose]();
  }
}

/** One agent of the node as far as it enrols pods. */
export class ZdsProxy implements AsyncDisposable {
  /** `start uid`, `stop uid mode`. */
  readonly events: string[] = [];
  readonly lines: { readonly level: string; readonly message: string; readonly fields: LogFields }[] = [];
  readonly requests: string[] = [];
  /** Called before a proxy starts; throws or waits to have it do so. */
  onStart: (uid: string) => Promise<void> | void = () => {};
  readonly manager: PodManager;
  readonly #running = new Set<Running>();
  readonly #wake = new Set<() => void>();

  constructor(socket: string, clock: Clock = systemClock) {
    const log = this.#logger();
    const observer = {
      request: (kind: string, result: string) => void this.requests.push(`${kind} ${result}`),
      connected: () => {},
    };
    this.manager = new PodManager({
      sys: filesAsNetns,
      clock,
      log,
      source: zdsSource(socket, { sys: filesAsNetns, clock, log, observer }),
      rules: {
        kind: 'cni',
        check: { fingerprint: () => '', look: async () => ({ gaps: [], isWatched: true }) },
      },
      settings: { retryMs: 50 },
      startProxy: async ({ uid }, netns) => {
        await this.onStart(uid);
        this.events.push(`start ${uid}`);
        const running = { uid, netns: nameOf(netns) };
        this.#running.add(running);
        return { stop: async (mode: StopMode) => this.#stopped(running, mode) };
      },
      onChange: () => this.#changed(),
    });
    this.manager.start();
  }

  /** `uid@netns` of each running proxy, sorted. */
  get running(): readonly string[] {
    return [...this.#running].map(({ uid, netns }) => `${uid}@${netns}`).toSorted();
  }

  get isReady(): boolean {
    return this.manager.readiness().isReady;
  }

  warnings(): readonly string[] {
    return this.lines
      .filter(({ level }) => level === 'warn' || level === 'error')
      .map(({ message, fields }) => `${message}: ${String(fields['error'] ?? fields['missing'] ?? '')}`);
  }

  /** Resolves when `isTrue` holds, looked at after each change of capture. */
  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake.add(resolve);
      await promise;
      this.#wake.delete(resolve);
    }
  }

  async ready(): Promise<void> {
    await this.until(() => this.isReady);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.manager.stop('graceful');
  }

  #stopped(running: Running, mode: StopMode): void {
    this.#running.delete(running);
    this.events.push(`stop ${running.uid} ${mode}`);
    this.#changed();
  }

  #changed(): void {
    for (const wake of this.#wake) wake();
  }

  #logger(): Logger {
    const method =
      (level: string) =>
      (message: string, fields: LogFields = {}) => {
        this.lines.push({ level, message, fields });
        this.#changed();
      };
    return { error: method('error'), warn: method('warn'), info: method('info') };
  }
}

function workloadOf(uid: string) {
  return { name: uid, namespace: 'demo', serviceAccount: uid };
}

/** Descriptors and paths of regular files are namespaces here, anything else is none. */
export const filesAsNetns: Sys = {
  ...linuxSys,
  adoptNetns: handle,
  isMachineNetns: () => false,
  openNetns(path) {
    try {
      return handle(openSync(path, 'r'));
    } catch (error) {
      throw new MeshError('CV-NETNS', messageOf(error), { path });
    }
  },
};

function handle(fd: number): Netns {
  const stats = fstatSync(fd, { bigint: true });
  if (!stats.isFile()) {
    linuxSys.close(fd);
    throw new MeshError('CV-NETNS', 'not a network namespace');
  }
  let isOpen = true;
  return {
    get fd() {
      return isOpen ? fd : -1;
    },
    path: `/proc/self/fd/${fd}`,
    id: { device: stats.dev, inode: stats.ino },
    [Symbol.dispose]() {
      if (isOpen) linuxSys.close(fd);
      isOpen = false;
    },
  };
}

function nameOf({ fd }: Netns): string {
  return readlinkSync(`/proc/self/fd/${fd}`).replace(/^.*netns-/, '');
}
