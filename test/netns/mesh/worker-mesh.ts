/** A mesh whose agent carries traffic in two workers, with uncaptured clients, and faults for its threads. */
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StatusView } from '../../../src/agent/admin/views.ts';
import type { AgentProcess, LogLine } from '../../support/agent-process.ts';
import { Faults } from '../../support/faults.ts';
import { meshForFile } from '../../support/mesh.ts';
import { Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

export const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const PORT = 8001;
/** None of them in one of two workers would be a surprise of one in 10^18. */
export const MANY = 60;
export const faults = new Faults();
after(() => faults[Symbol.dispose]());

export const mesh = meshForFile(
  {
    nodes: { n1: ['client', 'server'], n2: ['outside'] },
    env: {
      ...faults.env,
      // Far longer than a thread of a loaded machine is kept waiting, and than it takes to fill the heap.
      CULVERT_WORKER_HANG_TIMEOUT: '6s',
      CULVERT_WORKER_HEAP_MIB: '64',
    },
    flags: ['--workers', '2'],
  },
  (started) => void started.serve('server', PORT, doubling),
);

export const agent = (): AgentProcess => mesh().agent('n1');
export const server = () => ({ ip: mesh().pod('server').ip, port: PORT });

export async function status(): Promise<StatusView> {
  return JSON.parse((await agent().get('/status')).body) as StatusView;
}

/** Resolves with the first status for which `test` holds. */
async function statusWhere(test: (view: StatusView) => boolean): Promise<StatusView> {
  for (;;) {
    const view = await status();
    if (test(view)) return view;
    await sleep(100);
  }
}

type Crowd = readonly Client[] & Disposable;

/** Connections of an uncaptured client to a captured pod: one worker carries each. */
export async function connections(count: number): Promise<Crowd> {
  const clients: Client[] = [];
  const dispose = (): void => {
    for (const client of clients) client[Symbol.dispose]();
  };
  try {
    await Promise.all(
      Array.from({ length: count }, async () => {
        const client = await dial(mesh(), 'outside', server());
        clients.push(client);
        await client.exchange('hello');
      }),
    );
    return Object.assign(clients, { [Symbol.dispose]: dispose });
  } catch (error) {
    dispose();
    throw error;
  }
}

/** No connection of an earlier test is left. */
export async function calm(): Promise<void> {
  await statusWhere((view) => view.connections.live === 0);
}

/** Both workers run again, and take new connections. */
export async function recovered(restarts: number): Promise<void> {
  const sum = (view: StatusView): number => view.workers.reduce((all, worker) => all + worker.restarts, 0);
  await statusWhere((view) => sum(view) === restarts && view.workers.every(({ state }) => state === 'running'));
  for (let isSpread = false; !isSpread; ) {
    const before = await status();
    const clients = await connections(MANY / 3);
    const during = await status();
    isSpread = during.workers.every((worker, at) => worker.connections > (before.workers[at]?.connections ?? 0));
    clients[Symbol.dispose]();
    await statusWhere((view) => view.connections.live === before.connections.live);
  }
}

/** What became of `clients` when a worker ended: those that still work, and those that do not. */
export async function sorted(clients: readonly Client[]): Promise<{ alive: Client[]; cut: Client[] }> {
  const alive: Client[] = [];
  const cut: Client[] = [];
  const told = clients.map(async (client) => {
    try {
      await client.exchange('still there?');
      alive.push(client);
    } catch {
      cut.push(client);
    }
  });
  await Promise.all(told);
  return { alive, cut };
}

/** Ends of the connections of `clients`, once each has one; the agent is given the time to write a second one. */
export async function endsOf(clients: readonly Client[], from: number): Promise<readonly LogLine[]> {
  const wanted = new Set(clients.map(({ address }) => address));
  const ends = (): LogLine[] =>
    agent()
      .lines.slice(from)
      .filter((line) => line.message === 'connection complete' && wanted.has(String(line['src.addr'])));
  while (ends().length < wanted.size) await sleep(50);
  await sleep(300);
  return ends();
}
