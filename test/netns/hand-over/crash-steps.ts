/** Where in a hand-over a process may die, and who serves the node after that. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentProcess } from '../../support/agent-process.ts';
import type { TestMesh } from '../../support/mesh.ts';
import { ask } from '../../support/mesh-traffic.ts';
import type { RecordStream } from '../../support/numbered.ts';

export interface Step {
  readonly name: string;
  /** Whose line it is that the victim dies at. */
  readonly watch: 'giver' | 'heir';
  readonly message: string;
  readonly victim: 'giver' | 'heir';
}

export const STEPS: readonly Step[] = [
  { name: 'heir, just greeted', watch: 'giver', message: 'successor greeted', victim: 'heir' },
  { name: 'heir, while it takes pods', watch: 'heir', message: 'pod captured', victim: 'heir' },
  { name: 'giver, just greeted', watch: 'giver', message: 'successor greeted', victim: 'giver' },
  { name: 'giver, while it gives pods', watch: 'heir', message: 'pod captured', victim: 'giver' },
  { name: 'giver, after it has left', watch: 'giver', message: 'handed over', victim: 'giver' },
];

export interface Crash {
  readonly mesh: TestMesh;
  readonly node: string;
  /** Captured on the node. */
  readonly pods: readonly string[];
  readonly giver: AgentProcess;
}

/** Starts a successor of `giver`, kills one of them at `step`, and resolves with who serves the node then. */
export async function crashAt(
  { watch, message, victim }: Step,
  crash: Crash,
  onKilled: () => void = () => {},
): Promise<AgentProcess> {
  const { mesh, node, giver } = crash;
  const mark = giver.lines.length;
  const heir = mesh.spawnSecondAgent(node, ['--take-over', 'true']);
  const both: Readonly<Record<'giver' | 'heir', AgentProcess>> = { giver, heir };
  await both[watch].line((line) => line.message === message, message, watch === 'giver' ? mark : 0);
  both[victim].kill('SIGKILL');
  await both[victim].exited;
  onKilled();
  return victim === 'giver' ? heir : await afterHeir(crash, mark);
}

/** Who serves once the heir is dead: it may have had the node already, and then another agent starts, as after any crash. */
async function afterHeir({ mesh, node, pods, giver }: Crash, mark: number): Promise<AgentProcess> {
  const end = await giver.line(
    ({ message }) => message === 'handed over' || message.startsWith('the successor is gone'),
    'line that the successor is gone',
    mark,
  );
  if (end.message !== 'handed over') return giver;
  const next = mesh.spawnSecondAgent(node);
  for (const pod of pods) await mesh.captured(pod, next);
  return next;
}

/** Settles as the stream goes on or ends; fails when it does neither, or bytes are lost, doubled or mixed. */
export async function goesOnOrEnds(stream: RecordStream, withinMs: number): Promise<void> {
  const deadlineMs = performance.now() + withinMs;
  const before = stream.received.records;
  while (stream.received.failure === undefined && stream.received.records < before + 8) {
    assert.ok(performance.now() < deadlineMs, 'a connection hangs');
    await sleep(20);
  }
  assert.doesNotMatch(stream.received.failure ?? '', / came as /);
}

/** Resolves when a new connection was answered; tried again while an agent that was killed is being replaced. */
export async function reached(
  mesh: TestMesh,
  [from, to]: readonly [from: string, to: string],
  port: number,
): Promise<void> {
  const deadlineMs = performance.now() + 30_000;
  for (;;) {
    try {
      assert.equal(await ask(mesh, from, { ip: mesh.pod(to).ip, port }, 'new'), 'new');
      return;
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(100);
    }
  }
}
