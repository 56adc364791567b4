/** Budgets of workloads in a running agent: by file, by annotation, and when either is wrong. */
import assert from 'node:assert/strict';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TopRow } from '../../../src/cli/top-rows.ts';
import { type LogLine, MAIN } from '../../support/agent-process.ts';
import { meshForFile, type TestMesh } from '../../support/mesh.ts';
import { type Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };
const PORT = 8080;
const PODS = ['client', 'modest', 'absurd', 'late'];

const mesh = meshForFile({
  nodes: { n1: PODS, n2: ['outside'] },
  beforeAgents: async (made) => {
    writeFileSync(budgetsFile(made), 'workloads: [{namespace: demo, pod: client, connections: 2}]');
    writeFileSync(made.podsFile('n1'), JSON.stringify({ pods: pods(made, { absurd: 'connections=5,loop=4000%' }) }));
  },
  podFlags: (made, node) => ['--pods', made.podsFile(node), '--budgets', budgetsFile(made)],
});

function budgetsFile({ lab }: TestMesh): string {
  return join(lab.folder, 'budgets.yaml');
}

/** The pods of the node, some with a budget of their own. */
function pods(made: TestMesh, annotations: Readonly<Record<string, string>>) {
  return PODS.map((name) => {
    const budget = annotations[name];
    const own = budget === undefined ? {} : { annotations: { 'culvert.io/budget': budget } };
    return { ...made.podRecord(name), ...own };
  });
}

function replace(file: string, content: string): void {
  writeFileSync(`${file}.new`, content);
  renameSync(`${file}.new`, file);
}

function server() {
  return { ip: mesh().pod('outside').ip, port: PORT };
}

async function open(pod: string): Promise<Client> {
  const client = await dial(mesh(), pod, server());
  await client.exchange('x');
  return client;
}

/** How the agent ended one more connection of `pod`. */
async function oneMore(pod: string): Promise<LogLine> {
  using client = await dial(mesh(), pod, server());
  client.socket.write('x');
  assert.equal(await client.ended(), 'reset');
  return await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
}

test('a pod over the budget of the file is refused with the reason, its neighbour is not', privileged, async () => {
  using _app = mesh().serve('outside', PORT, doubling);
  using _first = await open('client');
  using _second = await open('client');
  const { reason, error } = await oneMore('client');
  assert.equal(reason, 'CV-BUDGET-CONNECTIONS');
  assert.match(String(error), /already has its 2 connections/);
  const metric = await metricsOf(mesh().agent('n1'));
  assert.ok(metric('culvert_refusals_total', { reason: 'CV-BUDGET-CONNECTIONS', direction: 'outbound' }) >= 1);
  assert.ok(metric('culvert_workload_connections_open', { namespace: 'demo', pod: 'client' }) >= 2);
  using _one = await open('modest');
  using _two = await open('modest');
  using _three = await open('modest');
});

test('an absurd annotation is refused with its reason and the pod is served all the same', privileged, async () => {
  using _app = mesh().serve('outside', PORT, doubling);
  const line = await mesh()
    .agent('n1')
    .line(({ reason }) => reason === 'CV-BUDGET-INVALID', 'refused annotation');
  assert.equal(line['pod'], 'demo/absurd');
  assert.match(String(line['error']), /loop must be a share from 1% to 100%, got "4000%"/);
  using _client = await open('absurd');
});

test('an annotation that comes later holds without a new start of the pod', privileged, async () => {
  using _app = mesh().serve('outside', PORT, doubling);
  using early = await open('late');
  replace(mesh().podsFile('n1'), JSON.stringify({ pods: pods(mesh(), { late: 'connections=1' }) }));
  // Read within a second or so; until then the connection is simply carried.
  for (;;) {
    using client = await dial(mesh(), 'late', server());
    client.socket.write('x');
    const answer = await Promise.race([client.atLeast(2).catch(() => 'refused'), client.ended()]);
    if (answer !== 'xx') break;
  }
  assert.equal((await oneMore('late'))['reason'], 'CV-BUDGET-CONNECTIONS');
  await early.exchange('still');
});

test('a bad file is refused whole with its line, and the last good one stays', privileged, async () => {
  using _app = mesh().serve('outside', PORT, doubling);
  const agent = mesh().agent('n1');
  const mark = agent.lines.length;
  replace(budgetsFile(mesh()), 'workloads:\n  - namespace: demo\n    pod: client\n    connections: none\n');
  const line = await agent.line(({ message }) => message.startsWith('budgets not loaded'), 'refused file', mark);
  assert.match(String(line['error']), /budgets\.yaml:4:18: connections must be a whole number .*got "none"/);
  using _first = await open('client');
  using _second = await open('client');
  assert.equal((await oneMore('client'))['reason'], 'CV-BUDGET-CONNECTIONS');
});

test('culvert top shows what each pod uses, by the names of its namespace and itself', privileged, async () => {
  using _app = mesh().serve('outside', PORT, doubling);
  using busy = await open('modest');
  const argv = [process.execPath, MAIN, 'top', '--once', '--interval', '2s', '--output', 'json', '--sort', 'in'];
  const looked = mesh().lab.node('n1').inside.exec(argv);
  let isOver = false;
  void looked.finally(() => (isOver = true));
  for (let bytes = busy.bytes; !isOver; bytes += 20_000) {
    busy.socket.write('x'.repeat(10_000));
    await busy.atLeast(bytes + 20_000);
  }
  const { code, stdout, stderr } = await looked;
  assert.equal(code, 0, stderr);
  const rows = JSON.parse(stdout) as TopRow[];
  assert.deepEqual(rows.map(({ workload }) => workload).toSorted(), PODS.map((pod) => `demo/${pod}`).toSorted());
  const row = rows.find(({ workload }) => workload === 'demo/modest');
  assert.ok(row !== undefined && row.connections >= 1);
  assert.ok(row.outBytesPerSecond > 0 && row.inBytesPerSecond > row.outBytesPerSecond && row.cpu > 0, stdout);
});
