/** A hand-over that is cut short, whichever process dies, and at whatever step: what becomes of connections, and what leaves the node. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Sniffer } from '../../../src/cli/lab/sniffer.ts';
import { Wiretap } from '../../../src/cli/lab/wiretap.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { TestMesh } from '../../support/mesh.ts';
import { ask, Client } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo, NumberedStream } from '../../support/numbered.ts';
import { crashAt, goesOnOrEnds, reached, STEPS } from './crash-steps.ts';

const privileged = { skip: skipWithoutRoot, timeout: 180_000 };
const NODES = { n1: ['client'], n2: ['server', 'server2'], n3: ['outside'] };
const PORT = 8080;
const HBONE_PORT = 15_008;
/** Everything that meshed pods say to each other. */
const SECRET = 'for meshed eyes only';
/** From outside the mesh to each pod of the node. */
const STREAMS = 10;
const INTERVAL_MS = 20;
/** Into the mesh and out of it: the node is the client's in one way and the server's in the other. */
const WAYS = [
  ['client', 'server'],
  ['server2', 'client'],
] as const;
const open = new AsyncDisposableStack();
const tap = new Wiretap();
let mesh: TestMesh;
let sniffer: Sniffer;
let serving: AgentProcess;

before(
  async () => {
    if (skipWithoutRoot !== false) return;
    mesh = open.use(await TestMesh.start({ nodes: NODES, flags: ['--hold', '5s'] }));
    serving = mesh.agent('n2');
    for (const pod of [...NODES.n1, ...NODES.n2]) mesh.serve(pod, PORT, echo);
    sniffer = open.use(await Sniffer.start(mesh.lab.wire, mesh.lab.node('n2').wirePort, (segment) => tap.add(segment)));
  },
  { timeout: 90_000 },
);
after(() => open.disposeAsync());

/** Opens connections one after the other, each with the secret in it, until told to stop. */
class Caller {
  /** When each was answered. */
  readonly answeredMs: number[] = [];
  readonly #way: (typeof WAYS)[number];
  readonly #done: Promise<void>;
  #isOver = false;

  constructor(way: (typeof WAYS)[number]) {
    this.#way = way;
    this.#done = this.#run();
  }

  /** Resolves when one was answered that began after the call. */
  async works(): Promise<void> {
    const { length } = this.answeredMs;
    // The first may have begun before.
    while (this.answeredMs.length < length + 2) await sleep(10);
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#done;
  }

  async #run(): Promise<void> {
    const [from, to] = this.#way;
    while (!this.#isOver) {
      try {
        using client = new Client(await mesh.dial(from, { ip: mesh.pod(to).ip, port: PORT }, 20_000));
        client.socket.end(SECRET);
        if ((await client.ended()) === 'end' && client.text === SECRET) this.answeredMs.push(performance.now());
      } catch {
        // Refused while nobody serves: what the mesh must do.
      }
      await sleep(10);
    }
  }
}

async function openStreams(): Promise<readonly NumberedStream[]> {
  const dialling = NODES.n2.flatMap((pod) =>
    Array.from({ length: STREAMS }, async () => {
      const socket = await mesh.dial('outside', { ip: mesh.pod(pod).ip, port: PORT }, 20_000);
      return new NumberedStream(socket, INTERVAL_MS);
    }),
  );
  return await Promise.all(dialling);
}

test('the tap sees what leaves the node in clear', privileged, async () => {
  const clear = 'for everybody';
  assert.equal(await ask(mesh, 'outside', { ip: mesh.pod('server').ip, port: PORT }, clear), clear);
  await sniffer.settle();
  assert.notDeepEqual(tap.findClear(clear), []);
});

for (const step of STEPS) {
  test(
    `kill -9 of the ${step.name}: nothing leaves in clear, connections go on or end, and new ones work`,
    privileged,
    async (t) => {
      const from = tap.position;
      const streams = await openStreams();
      const callers = WAYS.map((way) => new Caller(way));
      await Promise.all(callers.map((caller) => caller.works()));
      let killedMs = 0;
      const crash = { mesh, node: 'n2', pods: NODES.n2, giver: serving };
      serving = await crashAt(step, crash, () => (killedMs = performance.now()));
      await Promise.all(callers.map((caller) => caller.works()));
      await Promise.all(callers.map((caller) => caller.stop()));
      for (const pod of NODES.n2) await reached(mesh, ['outside', pod], PORT);
      await Promise.all(streams.map((stream) => goesOnOrEnds(stream, 30_000)));
      for (const stream of streams) stream.abort();
      for (const [at, { answeredMs }] of callers.entries()) {
        const backMs = (answeredMs.find((ms) => ms > killedMs) ?? Number.NaN) - killedMs;
        t.diagnostic(
          `${WAYS[at]?.join(' to ')}: a new connection was answered ${Math.round(backMs)} ms after the kill`,
        );
      }
      await sniffer.settle();
      assert.deepEqual(tap.findClear(SECRET), []);
      const ours = new Set(WAYS.flat().map((pod) => mesh.pod(pod).ip));
      const bare = tap.streams(from).filter(({ from: near, to, bytes }) => {
        return bytes.length > 0 && ours.has(near.ip) && ours.has(to.ip) && ![near.port, to.port].includes(HBONE_PORT);
      });
      assert.deepEqual(bare, []);
    },
  );
}
