/** A pod manager whose source, time and proxies are in the hands of a test; namespaces and rules are real. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { silentLogger } from '../../../src/base/log.ts';
import type { CaptureEvent, ProxySet, StopMode } from '../../../src/capture/capture-contract.ts';
import { CaptureJournal } from '../../../src/capture/capture-journal.ts';
import type { CapturedPod, PodSink } from '../../../src/capture/pod-source.ts';
import { PodManager } from '../../../src/capture/pods.ts';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns } from '../../../src/sys/sys.ts';
import { listenOn, socketFd } from '../../../src/sys/tcp.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { serveIn, type TestNetns, Wire } from '../../support/netns.ts';

const MARK = 0x539;

/** A manager with a source in the test's hands, and proxies that answer on the three ports with the port's number. */
export class CaptureAgent implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly events: (CaptureEvent | `stop ${StopMode}`)[] = [];
  readonly manager: PodManager;
  readonly #wake = new Set<() => void>();
  readonly #open = new Set<net.Socket>();
  sink: PodSink | undefined;

  constructor(journalPath?: string) {
    const deps = { sys: linuxSys, clock: this.clock, log: silentLogger };
    this.manager = new PodManager({
      sys: linuxSys,
      source: {
        start: (sink) => {
          this.sink = sink;
          return { [Symbol.dispose]() {} };
        },
      },
      startProxy: (_pod, netns) => this.#proxy(netns),
      rules: {
        kind: 'agent',
        redirection: createRedirection(linuxSys),
        ...(journalPath !== undefined && { journal: new CaptureJournal(journalPath, deps) }),
      },
      clock: this.clock,
      log: silentLogger,
      onEvent: (event) => this.events.push(event),
      onChange: () => {
        for (const wake of this.#wake) wake();
      },
    });
    this.manager.start();
  }

  /** Resolves when `isTrue` first holds after some change. */
  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake.add(resolve);
      await promise;
      this.#wake.delete(resolve);
    }
  }

  async enrol(netns: TestNetns, changes: Partial<CapturedPod> = {}): Promise<CapturedPod> {
    const pod = podOf(netns, changes);
    const captured = this.sink?.upsert(pod);
    this.sink?.synced();
    assert.equal(await captured, undefined);
    return pod;
  }

  async #proxy(netns: Netns): Promise<ProxySet> {
    const fds: number[] = [];
    try {
      for (const port of [15_001, 15_006, 15_008]) {
        fds.push(linuxSys.listenTcp(netns, { address: '::', port, mark: MARK, isReusePort: true }).fd);
      }
    } catch (error) {
      for (const fd of fds) linuxSys.close(fd);
      throw error;
    }
    const servers = fds.map((fd) => listenOn(fd, { onConnection: (socket) => this.#serve(socket) }));
    return {
      stop: async (mode) => {
        this.events.push(`stop ${mode}`);
        for (const socket of this.#open) socket.destroy();
        await Promise.all(servers.map((server) => once(server.close(), 'close')));
      },
    };
  }

  /** Says the port and ends; to a client of port 7 it says it and stays. */
  #serve(socket: net.Socket): void {
    this.#open.add(socket);
    socket.once('close', () => this.#open.delete(socket)).resume();
    const original = linuxSys.originalDestination(socketFd(socket) ?? -1);
    if (original?.port === 7) socket.write('7');
    else socket.end(String(socket.localPort));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.manager.stop('immediate');
  }
}

export function podOf(netns: TestNetns, changes: Partial<CapturedPod> = {}): CapturedPod {
  return {
    uid: netns.name,
    name: netns.name,
    namespace: 'default',
    serviceAccount: 'default',
    netnsPath: netns.path,
    options: { isIngressMode: false, rerouteInterfaces: [] },
    ...changes,
  };
}

/** A pod with an application on `port` that answers `app`, next to a neighbour. */
export async function podWithApp(families: 'v4' | 'v6' | 'dual' = 'dual') {
  await using undo = new AsyncDisposableStack();
  const wire = undo.use(await Wire.create(families));
  const [pod, neighbour] = [await wire.addPod(), await wire.addPod()];
  const app = undo.use(await serveIn(pod.netns, {}, (socket) => socket.end('app')));
  const far = undo.use(await serveIn(neighbour.netns, {}, (socket) => socket.end('far')));
  const cleanup = undo.move();
  return { pod, neighbour, app, far, [Symbol.asyncDispose]: () => cleanup.disposeAsync() };
}

export async function isRedirected(netns: TestNetns): Promise<boolean> {
  return (await netns.exec(['nft', 'list', 'ruleset'])).includes('istio-ambient-nat');
}
