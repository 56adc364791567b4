/** Whatever a CNI agent sends, the agent stays up, serves its pods, counts it, says it once, and keeps no descriptor. */
import assert from 'node:assert/strict';
import { existsSync, openSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { AgentProcess } from '../../support/agent-process.ts';
import { packet, type ZdsPacket } from '../../support/cni-connection.ts';
import { uidOf } from '../../support/mesh.ts';
import { cniMeshForFile } from '../../support/mesh-cni.ts';
import { ask, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { until } from '../../support/until.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
/** Each bad packet makes the pause before the next connection longer, so they are spread over agents. */
const NODES = ['n1', 'n2', 'n3'] as const;
type NodeName = (typeof NODES)[number];
const { mesh, cni } = cniMeshForFile({
  nodes: { n1: ['pod1'], n2: ['pod2'], n3: ['pod3'] },
});
const O_PATH = 0o10_000_000;
const workload = { name: 'x', namespace: 'demo', serviceAccount: 'x' };
const ADD = { kind: 'add', uid: 'x', workload } as const;

/** Opens what a packet carries; closed when it has been sent. */
class Sent implements Disposable {
  readonly node: NodeName;
  readonly #fds: number[] = [];

  constructor(node: NodeName) {
    this.node = node;
  }

  open(path: string, flags: number | string = 'r'): number {
    const fd = openSync(path, flags);
    this.#fds.push(fd);
    return fd;
  }

  /** The namespace of the captured pod of the node. */
  netns(flags?: number): number {
    return this.open(mesh().pod(podOn(this.node)).inside.path, flags);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) linuxSys.close(fd);
  }
}

interface Bad {
  readonly name: string;
  readonly make: (sent: Sent) => ZdsPacket;
  readonly nack: RegExp;
  /** As it is counted. */
  readonly kind: 'add' | 'keep' | 'del' | 'snapshot-sent' | 'unreadable';
}

function bytes(hex: string, ...fds: readonly number[]): ZdsPacket {
  return { data: Buffer.from(hex, 'hex'), fds };
}

/** The agent and the CNI agent disagree about the protocol: refused, and the connection ends. */
const ending: readonly Bad[] = [
  {
    name: 'a message cut in its middle',
    make: () => bytes('0a190a0375696412120a0577'),
    nack: /failure to read message : ZDS message has no protobuf/,
    kind: 'unreadable',
  },
  {
    name: 'random bytes',
    make: () => bytes('deadbeefcafe0badf00d'),
    nack: /failure to read message/,
    kind: 'unreadable',
  },
  {
    name: 'a packet of 1,025 bytes',
    make: () => ({ data: Buffer.alloc(1_025, 'x'), fds: [] }),
    nack: /failure to read message : a packet is over 1024 bytes/,
    kind: 'unreadable',
  },
  {
    name: 'a packet of 60,000 bytes with 200 descriptors',
    make: (sent) => ({ data: Buffer.alloc(60_000), fds: Array<number>(200).fill(sent.netns()) }),
    nack: /failure to read message : a packet is over 1024 bytes/,
    kind: 'unreadable',
  },
  {
    name: 'an Add with two namespaces',
    make: (sent) => packet(ADD, sent.netns(), sent.netns()),
    nack: /add came with 2 descriptors instead of 1/,
    kind: 'unreadable',
  },
  {
    name: 'an Add with 253 descriptors',
    make: (sent) => packet(ADD, ...Array<number>(253).fill(sent.netns())),
    nack: /add came with 253 descriptors instead of 1/,
    kind: 'unreadable',
  },
  {
    name: 'an Add without a namespace',
    make: () => packet(ADD),
    nack: /add came with 0 descriptors instead of 1/,
    kind: 'unreadable',
  },
  {
    name: 'a Del with a namespace',
    make: (sent) => packet({ kind: 'del', uid: uidOf(podOn(sent.node)) }, sent.netns()),
    nack: /del came with 1 descriptors instead of 0/,
    kind: 'unreadable',
  },
  {
    name: 'a SnapshotSent with a namespace',
    make: (sent) => packet({ kind: 'snapshot-sent' }, sent.netns()),
    nack: /snapshot-sent came with 1 descriptors instead of 0/,
    kind: 'unreadable',
  },
  {
    name: 'a payload of a later version',
    make: () => bytes('3205120375696400'),
    nack: /failure to read message : ZDS message has/,
    kind: 'unreadable',
  },
  {
    name: 'an answer in place of a request',
    make: () => bytes('0a00'),
    nack: /failure to read message : ZDS message has no uid/,
    kind: 'unreadable',
  },
  {
    name: 'a uid that is no UTF-8',
    make: () => bytes('2a050a03ff6964'),
    nack: /failure to read message : ZDS message has no protobuf/,
    kind: 'unreadable',
  },
  {
    name: 'an Add without workload info',
    make: (sent) => packet({ kind: 'add', uid: 'x' }, sent.netns()),
    nack: /failure to process message : add without workload info/,
    kind: 'add',
  },
  {
    name: 'a Keep after the snapshot',
    make: () => packet({ kind: 'keep', uid: 'x' }),
    nack: /failure to process message : ZDS: Keep after the snapshot/,
    kind: 'keep',
  },
  {
    name: 'a second SnapshotSent',
    make: () => packet({ kind: 'snapshot-sent' }),
    nack: /failure to process message : ZDS: a second SnapshotSent/,
    kind: 'snapshot-sent',
  },
];

const NO_NETNS = /failure to start proxy : the descriptor received is not a network namespace/;
const OF_NODE = /failure to start proxy : this is the namespace of the agent or of the node/;

/** The descriptor is wrong, the protocol is not: refused, and the connection goes on. */
const refused: readonly Bad[] = [
  { name: 'a regular file', make: (sent) => packet(ADD, sent.open('/etc/passwd')), nack: NO_NETNS, kind: 'add' },
  { name: 'a directory', make: (sent) => packet(ADD, sent.open('/proc')), nack: NO_NETNS, kind: 'add' },
  { name: 'a device', make: (sent) => packet(ADD, sent.open('/dev/null')), nack: NO_NETNS, kind: 'add' },
  { name: 'an end of a pipe', make: () => packet(ADD, 2), nack: NO_NETNS, kind: 'add' },
  {
    name: 'a namespace of another kind',
    make: (sent) => packet(ADD, sent.open('/proc/self/ns/mnt')),
    nack: NO_NETNS,
    kind: 'add',
  },
  {
    name: 'a network namespace that was not opened for use',
    make: (sent) => packet(ADD, sent.netns(O_PATH)),
    nack: NO_NETNS,
    kind: 'add',
  },
  {
    name: 'the namespace of the agent',
    make: (sent) => packet(ADD, sent.open(`/proc/${mesh().agent(sent.node).pid}/ns/net`)),
    nack: OF_NODE,
    kind: 'add',
  },
  {
    name: 'the namespace of another pod, captured already',
    make: (sent) => packet(ADD, sent.netns()),
    nack: /failure to start proxy : this namespace is captured as pod uid-pod\d already/,
    kind: 'add',
  },
];

/** The machine's own, where the tests run in it and not in a container: there nobody could tell. */
const ofMachine: readonly Bad[] = existsSync('/proc/sys/net/core/netdev_budget')
  ? [
      {
        name: 'the namespace of the machine',
        make: (sent) => packet(ADD, sent.open('/proc/self/ns/net')),
        nack: OF_NODE,
        kind: 'add',
      },
    ]
  : [];

function podOn(node: NodeName): string {
  return node.replace('n', 'pod');
}

async function requests(node: NodeName, kind: Bad['kind']): Promise<number> {
  const metric = await metricsOf(mesh().agent(node));
  return metric('culvert_zds_requests_total', { kind, result: 'refused' });
}

/** Descriptors of the agent once nothing comes or goes: an HTTP request of the test leaves one for a moment. */
async function restingFds({ pid }: AgentProcess): Promise<number> {
  let last = -1;
  for (let same = 0; same < 3; ) {
    const now = readdirSync(`/proc/${pid}/fd`).length;
    same = now === last ? same + 1 : 0;
    last = now;
    await sleep(10);
  }
  return last;
}

/** Resolves when the agent has no more descriptors open than it had. */
async function noMoreFds(agent: AgentProcess, before: number): Promise<void> {
  await until(`no more than ${before} descriptors`, async () => (await restingFds(agent)) <= before);
}

/** How many lines from `from` on warn of `text`, which one does. */
async function warnings(agent: AgentProcess, text: RegExp, from: number): Promise<number> {
  await agent.line(({ error }) => text.test(String(error)), `line with ${text.source}`, from);
  return agent.lines.slice(from).filter(({ level, error }) => level === 'warn' && text.test(String(error))).length;
}

async function stillServes(node: NodeName): Promise<void> {
  const pod = podOn(node);
  using _app = mesh().serve(pod, 8080, naming(pod));
  const other = node === 'n1' ? 'pod2' : 'pod1';
  const answer = await ask(mesh(), other, { ip: mesh().pod(pod).ip, port: 8080 });
  assert.equal(answer, `${pod} sees ${mesh().pod(other).ip}\n`);
}

/** Sends `bad` on the newest connection; resolves with what the answer said. */
async function send(node: NodeName, { make }: Bad): Promise<string> {
  using sent = new Sent(node);
  const connection = await cni(node).synced();
  return await connection.send(make(sent)).then(
    () => 'yes',
    (error: Error) => error.message,
  );
}

for (const [i, bad] of ending.entries()) {
  const node = NODES[i % NODES.length] ?? 'n1';
  test(
    `${bad.name}: refused, the connection ends, the pods go on, the next connection is served`,
    privileged,
    async () => {
      await mesh().ready(node);
      const agent = mesh().agent(node);
      const [before, fds, from] = [await requests(node, bad.kind), await restingFds(agent), agent.lines.length];
      const connections = cni(node).connectionCount;

      assert.match(await send(node, bad), bad.nack);
      await cni(node).synced(connections);
      await mesh().ready(node);

      assert.equal(await requests(node, bad.kind), before + 1);
      assert.equal(await warnings(agent, bad.nack, from), 1);
      await noMoreFds(agent, fds);
    },
  );
}

for (const [i, bad] of [...refused, ...ofMachine].entries()) {
  const node = NODES[i % NODES.length] ?? 'n1';
  test(`an Add with ${bad.name}: refused, and nothing else happens`, privileged, async () => {
    await mesh().ready(node);
    const agent = mesh().agent(node);
    const [before, fds, from] = [await requests(node, bad.kind), await restingFds(agent), agent.lines.length];
    const connections = cni(node).connectionCount;

    for (let times = 0; times < 3; times += 1) assert.match(await send(node, bad), bad.nack);
    await (await cni(node).synced()).send(packet({ kind: 'del', uid: 'x' }));
    await mesh().ready(node);

    assert.equal(cni(node).connectionCount, connections);
    assert.equal(await requests(node, bad.kind), before + 3);
    await noMoreFds(agent, fds);
    assert.equal(await warnings(agent, new RegExp(bad.nack.source.replace('failure to start proxy : ', '')), from), 1);
  });
}

const endings: readonly { readonly name: string; readonly end: Parameters<ReturnType<typeof cni>['hijackNext']>[0] }[] =
  [
    { name: 'before the hello is read', end: async () => {} },
    {
      name: 'in the middle of a snapshot, with an answer unread',
      end: async (socket) => {
        using _hello = await socket.receive(100);
        await socket.send(packet({ kind: 'keep', uid: 'y' }).data);
      },
    },
    {
      name: 'after half a message',
      end: async (socket) => {
        using _hello = await socket.receive(100);
        await socket.send(Buffer.from('0a190a03', 'hex'));
        using _nack = await socket.receive(1_024);
      },
    },
    {
      name: 'after an empty packet',
      end: async (socket) => {
        using _hello = await socket.receive(100);
        await socket.send(new Uint8Array());
        using _end = await socket.receive(100);
      },
    },
  ];

for (const [i, { name, end }] of endings.entries()) {
  const node = NODES[i % NODES.length] ?? 'n1';
  test(`a connection that ends ${name}: the pods go on, the next connection is served`, privileged, async () => {
    await mesh().ready(node);
    const agent = mesh().agent(node);
    const fds = await restingFds(agent);
    cni(node).hijackNext(end);
    cni(node).newest?.close();
    await cni(node).synced(cni(node).connectionCount);
    await mesh().ready(node);
    await noMoreFds(agent, fds);
  });
}

test('after all of that every agent still serves its pod, and started each once', privileged, async () => {
  for (const node of NODES) {
    await stillServes(node);
    const metric = await metricsOf(mesh().agent(node));
    assert.deepEqual([metric('workload_manager_proxies_started_total'), metric('culvert_bugs_total')], [1, 0]);
  }
});
