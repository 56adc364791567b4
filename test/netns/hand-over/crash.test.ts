import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { AgentProcess } from '../../support/agent-process.ts';
import { TestMesh } from '../../support/mesh.ts';
import { ask } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo, NumberedStream } from '../../support/numbered.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const NODES = { n2: ['server', 'server2'], n3: ['outside'] };
const INTERVAL_MS = 20;
let mesh: TestMesh;
let serving: AgentProcess;

before(
  async () => {
    if (skipWithoutRoot !== false) return;
    mesh = await TestMesh.start({ nodes: NODES, flags: ['--hold', '5s'] });
    serving = mesh.agent('n2');
    for (const pod of ['server', 'server2']) mesh.serve(pod, 8080, echo);
  },
  { timeout: 60_000 },
);
after(async () => {
  if (skipWithoutRoot === false) await mesh[Symbol.asyncDispose]();
});

interface Step {
  readonly name: string;
  /** Whose line it is that the victim dies at. */
  readonly watch: 'giver' | 'heir';
  readonly message: string;
  readonly victim: 'giver' | 'heir';
}

const STEPS: readonly Step[] = [
  { name: 'heir, just greeted', watch: 'giver', message: 'successor greeted', victim: 'heir' },
  { name: 'heir, while it takes pods', watch: 'heir', message: 'pod captured', victim: 'heir' },
  { name: 'giver, just greeted', watch: 'giver', message: 'successor greeted', victim: 'giver' },
  { name: 'giver, while it gives pods', watch: 'heir', message: 'pod captured', victim: 'giver' },
  { name: 'giver, after it has left', watch: 'giver', message: 'handed over', victim: 'giver' },
];

/** Settles as the stream goes on or ends; fails when it does neither. */
async function goesOnOrEnds(stream: NumberedStream): Promise<void> {
  const deadlineMs = performance.now() + 30_000;
  const before = stream.records;
  while (stream.failure === undefined && stream.records < before + 8) {
    assert.ok(performance.now() < deadlineMs, 'a connection hangs');
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
  }
  assert.doesNotMatch(stream.failure ?? '', / came as /);
}

for (const { name, watch, message, victim } of STEPS) {
  test(
    `kill -9 of the ${name}: connections go on or end, none hangs or mixes bytes, and new ones work`,
    privileged,
    async () => {
      const pods = ['server', 'server2'].map((pod) => mesh.pod(pod).ip);
      const dialling = pods.flatMap((ip) =>
        Array.from(
          { length: 10 },
          async () => new NumberedStream(await mesh.dial('outside', { ip, port: 8080 }, 20_000), INTERVAL_MS),
        ),
      );
      const streams = await Promise.all(dialling);
      const giver = serving;
      const mark = giver.lines.length;
      const heir = mesh.spawnSecondAgent('n2', ['--take-over', 'true']);
      const both: Readonly<Record<'giver' | 'heir', AgentProcess>> = { giver, heir };
      await both[watch].line((line) => line.message === message, message, watch === 'giver' ? mark : 0);
      both[victim].kill('SIGKILL');
      await both[victim].exited;
      serving = victim === 'giver' ? heir : await afterHeir(giver, mark);
      for (const ip of pods) assert.equal(await reached(ip), 'new');
      await Promise.all(streams.map(goesOnOrEnds));
      for (const stream of streams) stream.abort();
    },
  );
}

/** Who serves once the heir is dead: it may have had the node already, and then another agent starts, as after any crash. */
async function afterHeir(giver: AgentProcess, mark: number): Promise<AgentProcess> {
  const end = await giver.line(
    ({ message }) => message === 'handed over' || message.startsWith('the successor is gone'),
    'line that the successor is gone',
    mark,
  );
  if (end.message !== 'handed over') return giver;
  const next = mesh.spawnSecondAgent('n2');
  for (const pod of ['server', 'server2']) await mesh.captured(pod, next);
  return next;
}

/** Tried again while an agent that was killed is being replaced. */
async function reached(ip: string): Promise<string> {
  const deadlineMs = performance.now() + 20_000;
  for (;;) {
    try {
      return await ask(mesh, 'outside', { ip, port: 8080 }, 'new');
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
