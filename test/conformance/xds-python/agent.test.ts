/** Agents fed by a control plane and a CA that nobody here wrote: python3-grpcio, python3-protobuf and openssl. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { StatusView } from '../../../src/agent/admin/views.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { ask, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { OpensslCa } from '../../support/openssl-ca.ts';
import { skipWithoutPython } from '../../support/python-program.ts';
import { ControlPlane, type Order, podWorkload, policy, service } from './control-plane.ts';

const skipWithoutGrpc =
  skipWithoutPython('grpc', 'python3-grpcio') || skipWithoutPython('google.protobuf', 'python3-protobuf');
const privileged = { skip: skipWithoutRoot || skipWithoutGrpc, timeout: 90_000 };
const VIP = '10.96.0.1';
const CART = 'cart.demo.svc.cluster.local';
const ca = privileged.skip === false ? new OpensslCa() : undefined;
const planes = new Map<string, ControlPlane>();
after(async () => {
  for (const plane of planes.values()) await plane[Symbol.asyncDispose]();
  ca?.[Symbol.dispose]();
});

const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'], n3: ['lazy', 'outside'] },
  beforeAgents: async (lab) => {
    if (ca === undefined) return;
    const endpoint = { services: { [`demo/${CART}`]: { ports: [{ servicePort: 80, targetPort: 8080 }] } } };
    for (const node of ['n1', 'n2', 'n3']) {
      const plane = await ControlPlane.start(lab, node, ca);
      planes.set(node, plane);
      await plane.order(podWorkload(lab, 'client'));
      await plane.order(podWorkload(lab, 'server', endpoint));
      await plane.order(podWorkload(lab, 'lazy'));
      await plane.order(service(CART, VIP, [{ servicePort: 80, targetPort: 8080 }]));
    }
  },
  meshFlags: () => [],
  certificateEnv: (_lab, node) => ({ ...planeOf(node).env, ...(node === 'n3' && { XDS_ON_DEMAND: 'true' }) }),
});

function planeOf(node: string): ControlPlane {
  return planes.get(node) ?? assert.fail(`no control plane on ${node}`);
}

async function everywhere(order: Order): Promise<void> {
  for (const plane of planes.values()) await plane.order(order);
}

const server = () => ({ ip: mesh().pod('server').ip, port: 8080 });

async function statusOf(node: string): Promise<StatusView> {
  return JSON.parse((await mesh().agent(node).get('/status')).body) as StatusView;
}

test('the control plane was asked as ztunnel asks, and answered each time', privileged, async () => {
  await mesh().ready('n1');
  const [first, second] = planeOf('n1').events.filter(({ event }) => event === 'asked');
  const stream = await planeOf('n1').event('stream');
  assert.deepEqual([stream['authorization'], stream['clusterid']], ['Bearer good.token', 'Kubernetes']);
  assert.deepEqual([first?.['type'], second?.['type']], ['address', 'authorization']);
  const ip = mesh().lab.node('n1').ips[0];
  for (const asked of [first, second]) {
    assert.equal(asked?.['node'], `ztunnel~${ip}~agent-n1.istio-system~istio-system.svc.cluster.local`);
    const metadata = { NAME: 'agent-n1', NAMESPACE: 'istio-system', INSTANCE_IPS: ip, NODE_NAME: 'n1' };
    assert.deepEqual(asked?.['metadata'], { ...metadata, DNS_CAPTURE: 'false' });
    assert.deepEqual([asked?.['subscribe'], asked?.['unsubscribe'], asked?.['versions']], [[], [], {}]);
  }
  for (const type of ['address', 'authorization']) {
    const ack = await planeOf('n1').event('asked', 2, { type });
    assert.deepEqual([ack['node'], ack['error'], ack['nonce'] !== ''], [undefined, undefined, true]);
  }
});

test('pods and services that it told are reached by mutual TLS, with identities of its CA', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  for (const to of [server(), { ip: VIP, port: 80 }]) {
    const mark = mesh().agent('n2').lines.length;
    assert.equal(await ask(mesh(), 'client', to, 'hello'), 'hellohello');
    await mesh()
      .agent('n2')
      .access('inbound', { 'src.identity': identityOf('client'), 'dst.identity': identityOf('server') }, mark);
  }
});

test(
  'a policy that it pushes refuses the next connection and cuts the open one; its removal lets them in',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    using open = await dial(mesh(), 'client', server());
    await open.exchange('a');
    const deny = {
      action: 1,
      groups: [{ rules: [{ matches: [{ principals: [{ exact: identityOf('client').slice(9) }] }] }] }],
    };
    await everywhere(policy('no-client', deny));
    assert.equal(await open.ended(), 'reset');
    const { order: _order, ...rest } = policy('no-client', deny);
    const mark = mesh().agent('n2').lines.length;
    using refused = await dial(mesh(), 'client', server());
    assert.equal(await refused.ended(), 'reset');
    await mesh().agent('n2').access('inbound', { reason: 'CV-POLICY-DENY' }, mark);

    await everywhere({ ...rest, order: 'remove' });
    await planeOf('n2').event('asked', 4, { type: 'authorization' });
    assert.equal(await ask(mesh(), 'client', server(), 'b'), 'bb');
  },
);

test('a resource that is no message is refused with its name, while traffic goes on', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  using open = await dial(mesh(), 'client', server());
  await open.exchange('a');
  const before = planeOf('n1').events.length;
  await planeOf('n1').order({ order: 'raw', kind: 'workload', name: 'broken', base64: '/////w==' });
  const refused = () =>
    planeOf('n1')
      .events.slice(before)
      .find(({ error }) => error !== undefined);
  for (let i = 1; refused() === undefined; i += 1) await planeOf('n1').event('asked', i);
  assert.match(String(refused()?.['error']), /^broken: not a protobuf message/);
  assert.equal((await statusOf('n1')).mesh.controlPlane?.isBehind, true);
  await open.exchange('b');
  assert.equal(await ask(mesh(), 'client', server(), 'c'), 'cc');
  await planeOf('n1').order({ order: 'remove', kind: 'workload', name: 'broken' });
});

test('while it is away old and new connections live; it comes back and is told what is held', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  using open = await dial(mesh(), 'client', server());
  await open.exchange('a');
  const agent = mesh().agent('n1');
  const mark = agent.lines.length;
  await planeOf('n1').kill();
  await agent.line(({ message }) => message === 'XDS client connection error', 'line of the lost control plane', mark);
  assert.equal((await statusOf('n1')).mesh.controlPlane?.isConnected, false);
  assert.equal((await agent.get('/healthz/ready', 15_021)).status, 200);
  await open.exchange('b');
  assert.equal(await ask(mesh(), 'client', server(), 'c'), 'cc');

  const { name } = podWorkload(mesh(), 'lazy');
  await planeOf('n1').order({ order: 'remove', kind: 'workload', name });
  await planeOf('n1').start();
  const asked = await planeOf('n1').event('asked', 1, { type: 'address' });
  assert.equal(Object.keys(asked['versions'] as object).length, 4);
  await planeOf('n1').event('asked', 2, { type: 'address' });
  const { mesh: view } = await statusOf('n1');
  assert.deepEqual([view.workloads, view.services], [2, 1]);
  await open.exchange('d');
});

test('on demand, a destination is asked for when it is dialled, and reached by mutual TLS', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  const [first] = planeOf('n3').events.filter(({ event }) => event === 'asked');
  assert.deepEqual([first?.['subscribe'], first?.['unsubscribe']], [['*'], ['*']]);
  const mark = mesh().agent('n2').lines.length;
  assert.equal(await ask(mesh(), 'lazy', { ip: VIP, port: 80 }, 'hello'), 'hellohello');
  const wanted = planeOf('n3').events.filter(({ subscribe }) => String(subscribe) === `/${VIP}`);
  assert.equal(wanted.length, 1);
  await mesh()
    .agent('n2')
    .access('inbound', { 'src.identity': identityOf('lazy') }, mark);
});

test(
  'on demand with the control plane away, what is not known is refused and never tried in clear',
  privileged,
  async () => {
    let heard = 0;
    using _app = mesh().serve('outside', 8080, (socket) => {
      heard += 1;
      doubling(socket);
    });
    const to = { ip: mesh().pod('outside').ip, port: 8080 };
    await planeOf('n3').kill();
    const mark = mesh().agent('n3').lines.length;
    using client = await dial(mesh(), 'lazy', to);
    assert.notEqual(await client.ended(), undefined);
    await mesh().agent('n3').access('outbound', { reason: 'CV-MESH-SILENT' }, mark);
    assert.equal(heard, 0);

    await planeOf('n3').start();
    await mesh()
      .agent('n3')
      .line(({ message }) => message === 'Stream established', 'the new stream', mark);
    assert.equal(await ask(mesh(), 'lazy', to, 'plain'), 'plainplain');
  },
);
