import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { AgentProcess } from '../../support/agent-process.ts';
import { HalfClosed } from '../../support/half-closed.ts';
import { TestMesh } from '../../support/mesh.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { NumberedStream, type RecordStream } from '../../support/numbered.ts';
import { goesOnOrEnds, reached } from './crash-steps.ts';

const privileged = { skip: skipWithoutRoot, timeout: 300_000 };
const NODES = { n1: ['client', 'home'], n2: ['server', 'away'] };
/** Streams between two agents, in both directions: the node is the server's in one and the client's in the other. */
const WAYS = [
  ['client', 'server'],
  ['away', 'home'],
] as const;
const PORT = 8080;
const INTERVAL_MS = 20;
/** Of each way: which end has ended its half, if any. */
const STREAMS = [undefined, undefined, undefined, undefined, 'client', 'server'] as const;
const halves = new HalfClosed(INTERVAL_MS);
/** A suspended stream of whose other side nothing is heard is cut after 60 s of turns; the rest is for a busy machine. */
const END_WITHIN_MS = 180_000;
let mesh: TestMesh;
const serving = new Map<string, AgentProcess>();

/** Of the node that is upgraded, and the agent at the other end of its tunnels. */
type Role = 'giver' | 'heir' | 'peer';

interface Step {
  readonly victim: Role;
  /** Whose line it is that the victim dies at. */
  readonly watch: Role;
  readonly message: 'stream leaves its tunnel' | 'stream suspended' | 'stream resumed';
}

const STEPS: readonly Step[] = [
  { victim: 'giver', watch: 'giver', message: 'stream leaves its tunnel' },
  { victim: 'heir', watch: 'peer', message: 'stream suspended' },
  { victim: 'peer', watch: 'giver', message: 'stream leaves its tunnel' },
  { victim: 'giver', watch: 'heir', message: 'stream suspended' },
  { victim: 'peer', watch: 'heir', message: 'stream suspended' },
  { victim: 'heir', watch: 'heir', message: 'stream resumed' },
];

before(
  async () => {
    if (skipWithoutRoot !== false) return;
    mesh = await TestMesh.start({ nodes: NODES, flags: ['--hold', '5s', '--log-level', 'info,proxy=debug'] });
    for (const node of ['n1', 'n2']) serving.set(node, mesh.agent(node));
    for (const [, to] of WAYS) mesh.serve(to, PORT, (socket) => halves.serve(socket));
  },
  { timeout: 60_000 },
);
after(async () => {
  if (skipWithoutRoot === false) await mesh[Symbol.asyncDispose]();
});

async function opened(): Promise<RecordStream[]> {
  const all = WAYS.flatMap(([from, to]) =>
    STREAMS.map(async (whoEnds) => {
      const socket = await mesh.dial(from, { ip: mesh.pod(to).ip, port: PORT }, 20_000);
      return whoEnds === undefined ? new NumberedStream(socket, INTERVAL_MS) : await halves.start(socket, whoEnds);
    }),
  );
  return await Promise.all(all);
}

function agentOf(node: string): AgentProcess {
  return serving.get(node) ?? assert.fail(`nobody serves ${node}`);
}

/** Starts a successor on n2, kills one at `step`, and sees to it that both nodes are served again. */
async function crashAt({ victim, watch, message }: Step): Promise<void> {
  const giver = agentOf('n2');
  const peer = agentOf('n1');
  const marks = { giver: giver.lines.length, heir: 0, peer: peer.lines.length };
  const heir = mesh.spawnSecondAgent('n2', ['--take-over', 'true']);
  const all: Readonly<Record<Role, AgentProcess>> = { giver, heir, peer };
  await all[watch].line((line) => line.message === message, message, marks[watch]);
  all[victim].kill('SIGKILL');
  await all[victim].exited;
  switch (victim) {
    case 'giver':
      serving.set('n2', heir);
      return;
    case 'peer':
      await heir.tookOver();
      serving.set('n2', heir);
      serving.set('n1', await started('n1'));
      return;
    case 'heir': {
      const end = await giver.line(
        ({ message: text }) => text === 'handed over' || text.startsWith('the successor is gone'),
        'line that the successor is gone',
        marks.giver,
      );
      if (end.message === 'handed over') serving.set('n2', await started('n2'));
    }
  }
}

/** As after any crash. */
async function started(node: 'n1' | 'n2'): Promise<AgentProcess> {
  const next = mesh.spawnSecondAgent(node);
  for (const pod of NODES[node]) await mesh.captured(pod, next);
  return next;
}

for (const step of STEPS) {
  const { victim, watch, message } = step;
  test(
    `kill -9 of the ${victim} when the ${watch} says "${message}": streams go on or end, none hangs or mixes bytes`,
    privileged,
    async () => {
      const streams = await opened();
      await crashAt(step);
      await Promise.all(WAYS.map((way) => reached(mesh, way, PORT)));
      await Promise.all(streams.map((stream) => goesOnOrEnds(stream, END_WITHIN_MS)));
      for (const stream of streams) stream.abort();
    },
  );
}
