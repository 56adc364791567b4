import { after, before, test } from 'node:test';
import type { AgentProcess } from '../../support/agent-process.ts';
import { TestMesh } from '../../support/mesh.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo, NumberedStream } from '../../support/numbered.ts';
import { crashAt, goesOnOrEnds, reached, STEPS } from './crash-steps.ts';

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

for (const step of STEPS) {
  test(
    `kill -9 of the ${step.name}: connections go on or end, none hangs or mixes bytes, and new ones work`,
    privileged,
    async () => {
      const dialling = NODES.n2.flatMap((pod) =>
        Array.from({ length: 10 }, async () => {
          const socket = await mesh.dial('outside', { ip: mesh.pod(pod).ip, port: 8080 }, 20_000);
          return new NumberedStream(socket, INTERVAL_MS);
        }),
      );
      const streams = await Promise.all(dialling);
      serving = await crashAt(step, { mesh, node: 'n2', pods: NODES.n2, giver: serving });
      for (const pod of NODES.n2) await reached(mesh, ['outside', pod], 8080);
      await Promise.all(streams.map((stream) => goesOnOrEnds(stream, 30_000)));
      for (const stream of streams) stream.abort();
    },
  );
}
