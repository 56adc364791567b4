/** Live upgrades under load: streams of numbered records, some half closed, and new connections, while agents are replaced node by node. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentProcess } from './agent-process.ts';
import { HalfClosed } from './half-closed.ts';
import { TestMesh } from './mesh.ts';
import { Client } from './mesh-traffic.ts';
import { NumberedStream, type RecordStream } from './numbered.ts';
import { until } from './until.ts';

/**
 * Redirection maps all destinations of a client to one port of ours, so a source port that it uses for two of them is one
 * connection to conntrack, and the second gets no answer. Each client here has one destination.
 */
const NODES = { n1: ['client', 'near', 'twin', 'home'], n2: ['server', 'away'], n3: ['outside'] };
const PORT = 8080;
/** What this process itself may take on a busy machine; no claim hangs on it. */
const PATIENCE_MS = 90_000;
/** Of each stream before the first upgrade: who replaces an agent seldom does so in the second in which all its connections began. */
const RECORDS_BEFORE = 5;
/** Who dials whom: HBONE in both directions and on one node, plaintext into the mesh, out of it. */
const WAYS = [
  ['client', 'server'],
  ['away', 'home'],
  ['twin', 'home'],
  ['outside', 'server'],
  ['near', 'outside'],
] as const;
/** Of each stream what one upgrade moves, on average: each node carries three ways, n1 both ends of the one that stays on it. */
export const MOVED_PER_STREAM = 8 / 2 / WAYS.length;
/** Of these, streams of tunnels. */
export const TUNNELLED_PER_STREAM = 6 / 2 / WAYS.length;

type RoundKind = 'in-turn' | 'at-once';

export interface UpgradeOptions {
  /** Of each way: half of them are sent back what they send, and of the rest either end has ended its half. */
  readonly streams: number;
  /** In each round the agents of both nodes are replaced: one after the other, or at the same moment. */
  readonly rounds: readonly RoundKind[];
  readonly newPerSecond: number;
  /** Of each agent; by default what an agent chooses. */
  readonly workers?: number;
  /** From the answer to a record to the next one. */
  readonly intervalMs: number;
}

export interface UpgradeReport {
  readonly streams: number;
  readonly upgrades: number;
  readonly records: number;
  /** What became of streams that did not get all of their records back, each once and in order. */
  readonly failures: readonly string[];
  readonly newConnections: number;
  readonly failedNew: readonly string[];
  /** Longest silence of each stream in each upgrade of that kind, less its own interval, sorted. */
  readonly pausesMs: Readonly<Record<RoundKind, readonly number[]>>;
  readonly moved: number;
  /** Of these, streams of tunnels. */
  readonly tunnelled: number;
  /** What stayed in agents that were replaced. */
  readonly held: number;
  /** Replaced agents that ended while all streams went on. */
  readonly gone: number;
  /** Longest time that a pod had no owner, of each upgrade, as the new agents say it. */
  readonly handOversMs: readonly number[];
  /** Connections with more or fewer than one line, or one with an error. */
  readonly badLines: number;
  /** Exit codes of the agents that were replaced, once their last connection had ended. */
  readonly exits: readonly number[];
}

export async function liveUpgrades(options: UpgradeOptions): Promise<UpgradeReport> {
  await using mesh = await TestMesh.start({
    nodes: NODES,
    flags: ['--hold', '10m', '--workers', String(options.workers ?? 'auto')],
  });
  const halves = new HalfClosed(options.intervalMs);
  for (const name of ['server', 'home', 'outside']) mesh.serve(name, PORT, (socket) => halves.serve(socket));
  const streams = await openStreams(mesh, options, halves);
  const inPace = ({ received: { records, failure } }: RecordStream): boolean =>
    records >= RECORDS_BEFORE || failure !== undefined;
  await until('records of every stream', () => streams.every(inPace));
  const calls = new NewConnections(mesh, options.newPerSecond);
  const pausesMs: Record<RoundKind, number[]> = { 'in-turn': [], 'at-once': [] };
  const agents: AgentProcess[] = [...mesh.agents];
  const replaced: AgentProcess[] = [];
  const handOversMs: number[] = [];
  let moved = 0;
  let tunnelled = 0;
  let held = 0;
  for (const round of options.rounds) {
    for (const nodes of round === 'in-turn' ? [['n2'], ['n1']] : [['n1', 'n2']]) {
      for (const stream of streams) stream.received.takePauseMs();
      const former = nodes.map((node) => mesh.agent(node));
      const next = nodes.map((node) => mesh.spawnAgent(node, ['--take-over', 'true']));
      replaced.push(...former);
      agents.push(...next);
      for (const taken of await Promise.all(next.map((agent) => agent.tookOver()))) {
        moved += Number(taken['moved']);
        tunnelled += Number(taken['streams']);
        held += Number(taken['held']);
        handOversMs.push(Number(taken['longestPauseMs']));
      }
      pausesMs[round].push(...streams.map((stream) => Math.max(0, stream.received.takePauseMs() - options.intervalMs)));
    }
  }
  const gone = await goneOf(replaced);
  await calls.stop();
  await Promise.all(streams.map((stream) => stream.stop()));
  const exits = await Promise.all(replaced.map(({ exited }) => exited));
  return {
    streams: streams.length,
    upgrades: replaced.length,
    records: streams.reduce((sum, { received }) => sum + received.records, 0),
    failures: streams.flatMap(({ received }) => received.failure ?? []),
    newConnections: calls.made,
    failedNew: calls.failed,
    pausesMs: { 'in-turn': sorted(pausesMs['in-turn']), 'at-once': sorted(pausesMs['at-once']) },
    moved,
    tunnelled,
    held,
    gone,
    handOversMs,
    badLines: badLines(agents),
    exits,
  };
}

function sorted(values: readonly number[]): readonly number[] {
  return values.toSorted((a, b) => a - b);
}

/** How many have ended, once all have, or the patience is over. */
async function goneOf(agents: readonly AgentProcess[]): Promise<number> {
  let gone = 0;
  const all = agents.map(({ exited }) => exited.then(() => (gone += 1)));
  await Promise.race([Promise.all(all), sleep(PATIENCE_MS, undefined, { ref: false })]);
  return gone;
}

async function openStreams(mesh: TestMesh, options: UpgradeOptions, halves: HalfClosed): Promise<RecordStream[]> {
  const { streams, intervalMs } = options;
  const opened: RecordStream[] = [];
  for (let at = 0; at < streams; at += WAYS.length) {
    const kind = KINDS[(at / WAYS.length) % KINDS.length];
    const batch = WAYS.slice(0, streams - at).map(async ([from, to]) => {
      const socket = await mesh.dial(from, { ip: mesh.pod(to).ip, port: PORT }, PATIENCE_MS);
      return kind === undefined ? new NumberedStream(socket, intervalMs) : await halves.start(socket, kind);
    });
    opened.push(...(await Promise.all(batch)));
  }
  return opened;
}

/** Which end has ended its half; `undefined`: none, all that is sent comes back. */
const KINDS = [undefined, 'client', undefined, 'server'] as const;
/** Short connections at a steady rate, from inside the mesh and from outside in turn. */
class NewConnections {
  made = 0;
  readonly failed: string[] = [];
  readonly #mesh: TestMesh;
  readonly #running: Promise<void>;
  readonly #open = new Set<Promise<void>>();
  #isOver = false;

  constructor(mesh: TestMesh, perSecond: number) {
    this.#mesh = mesh;
    this.#running = this.#run(1_000 / perSecond);
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#running;
    await Promise.all(this.#open);
  }

  async #run(intervalMs: number): Promise<void> {
    const startMs = performance.now();
    while (!this.#isOver) {
      const call = this.#call(this.made % 2 === 0 ? 'client' : 'outside').finally(() => this.#open.delete(call));
      this.#open.add(call);
      this.made += 1;
      await sleep(Math.max(0, startMs + this.made * intervalMs - performance.now()));
    }
  }

  async #call(from: string): Promise<void> {
    try {
      const to = { ip: this.#mesh.pod('server').ip, port: PORT };
      using client = new Client(await this.#mesh.dial(from, to, PATIENCE_MS));
      client.socket.end('new');
      assert.equal(await client.ended(), 'end');
      assert.equal(client.text, 'new');
    } catch (error) {
      this.failed.push(error instanceof Error ? `${from}: ${error.message}` : String(error));
    }
  }
}

function badLines(agents: readonly AgentProcess[]): number {
  const lines = agents.flatMap((agent) => agent.lines).filter(({ message }) => message === 'connection complete');
  const ids = new Set(lines.map((line) => line['connection']));
  return lines.length - ids.size + lines.filter((line) => line['error'] !== undefined).length;
}
