/** An agent that has one pod to give, and what tests say to it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ServedPod } from '../../../src/agent/data-plane.ts';
import { Estate, estateKey } from '../../../src/agent/hand-over/estate.ts';
import { Giver } from '../../../src/agent/hand-over/giver.ts';
import type { Legacy } from '../../../src/agent/hand-over/legacy.ts';
import { decodeReply, encode, type Request, VERSIONS } from '../../../src/agent/hand-over/protocol.ts';
import type { Departed } from '../../../src/proxy/departure.ts';
import {
  descriptorsOf,
  type Inheritance,
  type InheritedConnection,
  NO_INHERITANCE,
  NO_NEEDS,
  type TunnelNeeds,
} from '../../../src/proxy/inheritance.ts';
import type { ClaimedStream, StreamClaim } from '../../../src/proxy/settings.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { takeRunLock } from '../../../src/sys/run-lock.ts';
import type { Netns } from '../../../src/sys/sys.ts';
import { duplicateOf, listenOn } from '../../../src/sys/tcp.ts';
import type { UnixSocket } from '../../../src/sys/unix-contract.ts';
import { FakeClock } from '../../support/fake-clock.ts';

export const HELLO = { type: 'hello', ...VERSIONS, build: 'test' } as const;
export const POD = { uid: 'p1' };

/** An agent with one pod, whose listener answers with the name of who accepted. */
export class GivingNode implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'culvert-hand-over-'));
  readonly clock = new FakeClock();
  readonly key: string;
  readonly lines: string[] = [];
  /** What the pod was started with, each time. */
  readonly starts: Inheritance[] = [];
  /** What it says when it is asked for connections. */
  readonly departures: Departed[] = [];
  /** Tunnels that its streams will ask for. */
  needs: TunnelNeeds = NO_NEEDS;
  /** What it says when it is asked for a suspended stream, and was asked. */
  readonly claimed: ClaimedStream[] = [];
  readonly asked: StreamClaim[] = [];
  /** Streams that nobody came for after all. */
  readonly kept: InheritedConnection[] = [];
  counts = { live: 0, cut: 0 };
  /** How exchanges went. */
  readonly results: string[] = [];
  /** What it knows. */
  legacy: Legacy = { certificates: [] };
  /** Nothing is held any more. */
  leave: () => Promise<void> = async () => {};
  /** Resolves when the pod may be served. */
  ready: Promise<void> = Promise.resolve();
  port = 0;
  hasLeft = false;
  readonly #undo = new AsyncDisposableStack();
  readonly #netns: Netns;
  readonly #estate = new Estate();

  private constructor(netns: Netns) {
    this.#netns = netns;
    this.key = estateKey(POD, netns);
  }

  /** `uid`: of whom it takes successors. */
  static async start(uid = process.getuid?.() ?? 0): Promise<GivingNode> {
    const netns = linuxSys.openNetns('/proc/self/ns/net');
    const node = new GivingNode(netns);
    node.#undo.use(netns);
    node.#undo.defer(() => rmSync(node.folder, { recursive: true }));
    const lock = node.#undo.use(takeRunLock(node.folder));
    await node.serve(POD);
    const log = (message: string): void => void node.lines.push(message);
    const giver = new Giver(linuxSys.listenUnix(node.path, { type: 'seqpacket' }), {
      clock: node.clock,
      log: { debug: log, info: log, warn: log, error: log },
      build: 'test',
      estate: node.#estate,
      uid,
      lock,
      counts: () => node.counts,
      settle: async () => {},
      legacy: async () => node.legacy,
      holdMs: 60_000,
      predecessors: () => [],
      claimBefore: async () => 'nowhere',
      servers: { yield: async () => {}, resume: async () => {} },
      onResult: (result) => node.results.push(result),
      onLeft: () => (node.hasLeft = true),
    });
    node.#undo.use(giver);
    node.leave = () => giver[Symbol.asyncDispose]();
    return node;
  }

  /** Resolves with the key of the pod. */
  async serve(pod: ServedPod): Promise<string> {
    const start = async (_pod: ServedPod, _netns: Netns, from?: Inheritance) => {
      await this.ready;
      return this.#serve(from);
    };
    const plane = { start };
    const served = await this.#estate.serve(pod, this.#netns, plane, NO_INHERITANCE);
    this.#undo.defer(() => served.stop('immediate'));
    return this.keyOf(pod);
  }

  /** The pod has left the node. */
  async stopPod(): Promise<void> {
    await this.#estate.get(this.key)?.stop('immediate');
  }

  keyOf(pod: ServedPod): string {
    return estateKey(pod, this.#netns);
  }

  get path(): string {
    return join(this.folder, 'hand-over.sock');
  }

  connect(): UnixSocket {
    return this.#undo.use(linuxSys.connectUnix(this.path, 'seqpacket'));
  }

  async answer(): Promise<string> {
    return await answerOf(this.port);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#undo.disposeAsync();
  }

  #serve(inherited: Inheritance = NO_INHERITANCE) {
    this.starts.push(inherited);
    for (const fd of descriptorsOf({ ...inherited, listeners: [] })) closeFd(fd);
    const [given] = inherited.listeners;
    const address = { address: '127.0.0.1', port: this.port, isReusePort: true };
    const server = answering('old', given?.fd ?? linuxSys.listenTcp(undefined, address).fd);
    this.port = (server.address() as net.AddressInfo).port;
    return {
      needs: async () => this.needs,
      warm: async () => assert.fail('nothing moves to this node'),
      leaveListeners: async () => {
        if (!server.listening) return [];
        const fd = duplicateOf(server);
        server.close();
        return [{ port: this.port, fd }];
      },
      moveSome: async () => this.departures.shift() ?? { connections: [], isLast: true },
      surrender: async (claim: StreamClaim) => {
        this.asked.push(claim);
        return this.claimed.shift() ?? 'later';
      },
      adopt: async (connections: readonly InheritedConnection[]) => {
        this.kept.push(...connections);
        for (const fd of descriptorsOf({ listeners: [], connections })) closeFd(fd);
      },
      stop: async () => void server.close(),
    };
  }
}

export function answering(name: string, fd: number): net.Server {
  return listenOn(fd, { onConnection: (socket) => socket.end(name) });
}

export async function answerOf(port: number): Promise<string> {
  const socket = net.connect(port, '127.0.0.1');
  const [data] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return data.toString();
}

export async function say(socket: UnixSocket, request: Request): Promise<void> {
  await socket.send(encode(request));
}

/** The type of the next reply; its descriptors are closed. */
export async function hear(socket: UnixSocket): Promise<string> {
  using message = await socket.receive(65_536);
  return message === undefined ? 'end' : decodeReply(message.data).type;
}
