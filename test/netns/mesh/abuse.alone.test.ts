/** Peers that mean harm, with and without a certificate: the agent stays up, bounded, and useful to everybody else. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { AgentProcess } from '../../support/agent-process.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { HboneClient, meshMaterial } from '../../support/mesh-hbone.ts';
import { type Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import type { FloodReport } from './flooder.ts';

const FLOODER = fileURLToPath(new URL('./flooder.ts', import.meta.url));
const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const MIB = 1024 * 1024;
const FLOOD_SECONDS = 1.5;
const HALF_OPEN = 10_000;
/** Handshakes that the agent keeps open per pod, and a little for everything else. */
const MOST_DESCRIPTORS = 512 + 200;
/** Far above what a flood may hold for a moment, far below what an unbounded queue would take. */
const MOST_GROWTH = 256 * MIB;
/** What may stay for good: code that was compiled, tables that grew. The heap is given back once the agent is quiet. */
const MOST_LEFT = 64 * MIB;
/** A gross hang. Two cores shared with the flood make no promise about less. */
const MOST_SILENCE_MS = 10_000;
const CALM = 11;
const COMPRESSION_ERROR = 9;

const nodes = { n1: ['client'], n2: ['victim', 'neighbour'], n3: ['outside'] };
const mesh = meshForFile({ nodes }, prepare);
let certificate: readonly string[] = [];
let probe: Probe;
let start = { rss: 0, descriptors: 0, p99: 0 };

function agent(): AgentProcess {
  return mesh().agent('n2');
}

function descriptors(): number {
  return readdirSync(`/proc/${agent().pid}/fd`).length;
}

function flooder(kind: string, amount: number): ChildProcess {
  const { ip } = mesh().pod('victim');
  const argv = [process.execPath, FLOODER, kind, ip, String(amount), `${ip}:8080`, ...certificate];
  return mesh()
    .pod('outside')
    .inside.spawn(argv, { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function firstLine(child: ChildProcess): Promise<string> {
  assert.ok(child.stdout !== null);
  const [chunk] = (await once(child.stdout, 'data')) as [Buffer];
  return chunk.toString();
}

/** One connection to the second pod of the victim's node, on which a request is always under way. */
class Probe {
  readonly #client: Client;
  #times: number[] = [];
  #longest = 0;
  #isOver = false;
  readonly done: Promise<void>;

  constructor(client: Client) {
    this.#client = client;
    this.done = this.#run();
  }

  /** Quantiles of what was measured since the last call, milliseconds. */
  take(): { readonly p99: number; readonly most: number; readonly count: number } {
    const times = this.#times.toSorted((a, b) => a - b);
    const taken = { p99: times[Math.floor(times.length * 0.99)] ?? 0, most: this.#longest, count: times.length };
    this.#times = [];
    this.#longest = 0;
    return taken;
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.done;
    this.#client[Symbol.dispose]();
  }

  async #run(): Promise<void> {
    let received = 0;
    const request = Buffer.alloc(512, 7);
    while (!this.#isOver) {
      const startedMs = performance.now();
      this.#client.socket.write(request);
      received += 1_024;
      await this.#client.atLeast(received);
      const ms = performance.now() - startedMs;
      this.#times.push(ms);
      this.#longest = Math.max(this.#longest, ms);
      await sleep(1);
    }
  }
}

async function prepare(): Promise<void> {
  const { keyPem, chainPem, rootsPem } = await meshMaterial(mesh(), identityOf('attacker'));
  const folder = mkdtempSync(join(mesh().lab.folder, 'flood-'));
  certificate = Object.entries({ key: keyPem, chain: chainPem, roots: rootsPem.join('') }).map(([name, text]) => {
    const path = join(folder, `${name}.pem`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  });
  mesh().serve('victim', 8080, doubling);
  mesh().serve('neighbour', 8080, doubling);
  probe = new Probe(await dial(mesh(), 'client', { ip: mesh().pod('neighbour').ip, port: 8080 }));
  await sleep(2_000);
  start = { rss: agent().rssBytes, descriptors: descriptors(), p99: probe.take().p99 };
}

/** Runs `attack`, and checks that the neighbour was served meanwhile and that the agent grew within bounds. */
async function during(attack: () => Promise<void>, tell: (text: string) => void): Promise<void> {
  probe.take();
  let [mostRss, mostFds] = [0, 0];
  const watch = setInterval(() => {
    mostRss = Math.max(mostRss, agent().rssBytes);
    mostFds = Math.max(mostFds, descriptors());
  }, 50);
  try {
    await attack();
  } finally {
    clearInterval(watch);
  }
  const { p99, most, count } = probe.take();
  tell(
    `neighbour: p99 ${p99.toFixed(1)} ms, ${(p99 / start.p99).toFixed(1)} times that at rest; longest ${most.toFixed(0)} ms; ` +
      `agent: ${Math.round((mostRss - start.rss) / MIB)} MiB more at most`,
  );
  assert.ok(agent().isRunning);
  assert.ok(count > 0 && most < MOST_SILENCE_MS, `the neighbour waited ${most} ms`);
  assert.ok(mostRss - start.rss < MOST_GROWTH, `the agent grew by ${mostRss - start.rss} bytes`);
  assert.ok(mostFds - start.descriptors < MOST_DESCRIPTORS, `${mostFds} descriptors`);
  assert.equal((await metricsOf(agent()))('culvert_bugs_total'), 0);
}

async function isServed(): Promise<boolean> {
  const material = await meshMaterial(mesh(), identityOf('client'));
  const { ip } = mesh().pod('victim');
  using tunnel = await HboneClient.open(mesh(), 'outside', { ip, material, expected: [identityOf('victim')] });
  return (await tunnel.status(`${ip}:8080`)) === 200;
}

test(
  `${HALF_OPEN} handshakes that never end hold a bounded number of sockets, and an honest peer gets through`,
  privileged,
  async (t) => {
    await during(
      async () => {
        const child = flooder('half-open', HALF_OPEN);
        const { connected, refused, closed } = JSON.parse(await firstLine(child)) as Record<string, number>;
        t.diagnostic(`${connected} connected, ${refused} refused, ${closed} closed by the agent so far`);
        assert.ok((connected ?? 0) > HALF_OPEN * 0.9);
        assert.equal(await isServed(), true);
        child.kill('SIGKILL');
        await once(child, 'close');
      },
      (text) => t.diagnostic(text),
    );
  },
);

for (const [kind, code] of [
  ['rapid reset', CALM],
  ['continuation', CALM],
  ['empty continuation', CALM],
  ['ping', CALM],
  ['settings', CALM],
  ['empty data', CALM],
  ['window update', CALM],
  ['priority', CALM],
  ['unknown frame', CALM],
  ['malformed HPACK', COMPRESSION_ERROR],
  ['header bomb', undefined],
  ['HPACK bomb', undefined],
  ['CONNECT with :path', CALM],
  ['data without a stream', undefined],
] as const) {
  test(
    `a flood: ${kind}: the tunnel is closed each time, the neighbour served, the agent bounded`,
    privileged,
    async (t) => {
      const mark = agent().lines.length;
      await during(
        async () => {
          const report = JSON.parse(await firstLine(flooder(kind, FLOOD_SECONDS))) as FloodReport;
          t.diagnostic(
            `${report.sessions} tunnels, ${report.closed} closed, ${report.frames} frames, ${JSON.stringify(report.goaways)}`,
          );
          assert.ok(report.closed >= 1, 'no tunnel was closed');
          assert.ok(report.closed >= report.sessions - 1);
          assert.ok(report.mostBytes < 64 * MIB, `${report.mostBytes} bytes were taken from one tunnel`);
          if (code !== undefined) assert.ok((report.goaways[code] ?? 0) >= 1, JSON.stringify(report.goaways));
        },
        (text) => t.diagnostic(text),
      );
      if (code === CALM) {
        const line = await agent().line(({ message }) => message === 'tunnel closed for abuse', 'abuse', mark);
        assert.equal(line['peer'], mesh().pod('outside').ip);
        assert.equal(line['identity'], identityOf('attacker'));
      }
      assert.equal(await isServed(), true);
    },
  );
}

test('a flood of odd authorities is answered 400 each and disturbs nobody', privileged, async (t) => {
  await during(
    async () => {
      const report = JSON.parse(await firstLine(flooder('odd authority', FLOOD_SECONDS))) as FloodReport;
      t.diagnostic(`${report.sessions} tunnels, ${report.frames} requests`);
    },
    (text) => t.diagnostic(text),
  );
  assert.equal(await isServed(), true);
});

test(
  'after all of that the memory and the sockets of the agent are back near where they were',
  privileged,
  async (t) => {
    await probe.stop();
    const limit = { rss: start.rss + MOST_LEFT, fds: start.descriptors + 20 };
    for (let i = 0; i < 300 && (agent().rssBytes > limit.rss || descriptors() > limit.fds); i++) await sleep(200);
    t.diagnostic(`${Math.round(start.rss / MIB)} MiB before, ${Math.round(agent().rssBytes / MIB)} MiB after`);
    assert.ok(agent().rssBytes <= limit.rss, `${agent().rssBytes} bytes, ${start.rss} at the start`);
    assert.ok(descriptors() <= limit.fds, `${descriptors()} descriptors, ${start.descriptors} at the start`);
  },
);
