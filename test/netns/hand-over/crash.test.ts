import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { AgentProcess } from '../../support/agent-process.ts';
import { TestMesh } from '../../support/mesh.ts';
import { ask } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo, NumberedStream } from '../../support/numbered.ts';
import { crashAt, STEPS } from './crash-steps.ts';

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
    for (const pod of NODES.n2) mesh.serve(pod, 8080, echo);
  },
  { timeout: 60_000 },
);
after(async () => {
  if (skipWithoutRoot === false) await mesh[Symbol.asyncDispose]();
});

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

for (const step of STEPS) {
  test(
    `kill -9 of the ${step.name}: connections go on or end, none hangs or mixes bytes, and new ones work`,
    privileged,
    async () => {
      const pods = NODES.n2.map((pod) => mesh.pod(pod).ip);
      const dialling = pods.flatMap((ip) =>
        Array.from(
          { length: 10 },
          async () => new NumberedStream(await mesh.dial('outside', { ip, port: 8080 }, 20_000), INTERVAL_MS),
        ),
      );
      const streams = await Promise.all(dialling);
      serving = await crashAt(step, { mesh, node: 'n2', pods: NODES.n2, giver: serving });
      for (const ip of pods) assert.equal(await reached(ip), 'new');
      await Promise.all(streams.map(goesOnOrEnds));
      for (const stream of streams) stream.abort();
    },
  );
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
