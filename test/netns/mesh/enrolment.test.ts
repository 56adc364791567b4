import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { linuxSys } from '../../../src/sys/linux.ts';
import { identityOf, meshForFile, replaceFile, uidOf } from '../../support/mesh.ts';
import { ask, Client, dial, doubling, naming, refused } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server', 'late', 'late2', 'late3'], n3: ['outside'] },
  enrolled: ['client', 'server'],
});

/** Resolves when `message` was logged of `pod` by the agent of n2 from line `from` on. */
function logged(message: string, pod: string, from: number) {
  const isIt = (line: Readonly<Record<string, unknown>>): boolean =>
    line['message'] === message && line['uid'] === uidOf(pod);
  return mesh().agent('n2').line(isIt, `${message} of ${pod}`, from);
}

test('a pod is enrolled and un-enrolled while its server runs; the server never notices', privileged, async () => {
  using _app = mesh().serve('late', 8080, naming('late'));
  const to = { ip: mesh().pod('late').ip, port: 8080 };
  const agent = mesh().agent('n2');
  const answer = `late sees ${mesh().pod('client').ip}\n`;
  const plain = mesh().workloads({ late: { protocol: 'TCP' } });
  await mesh().update({ workloads: plain });
  assert.equal(await ask(mesh(), 'client', to), answer);

  let mark = agent.lines.length;
  mesh().enrol(['client', 'server', 'late']);
  await logged('pod captured', 'late', mark);
  await mesh().update({});
  assert.equal(await ask(mesh(), 'client', to), answer);
  const line = await agent.access('inbound', { 'dst.hbone_addr': `${to.ip}:8080` }, mark);
  assert.equal(line['dst.identity'], identityOf('late'));

  mark = agent.lines.length;
  await mesh().update({ workloads: plain });
  mesh().enrol(['client', 'server']);
  await logged('pod released', 'late', mark);
  assert.equal(await ask(mesh(), 'client', to), answer);
  assert.equal(await ask(mesh(), 'outside', to), `late sees ${mesh().pod('outside').ip}\n`);
  const { stdout } = await mesh().pod('late').inside.exec(['nft', 'list', 'ruleset']);
  assert.equal(stdout.includes('istio-ambient'), false);
});

test(
  'a pod that leaves while connections are open: they end, and who still thinks it is in the mesh is refused',
  privileged,
  async () => {
    await mesh().update({});
    const agent = mesh().agent('n2');
    let mark = agent.lines.length;
    mesh().enrol(['client', 'server', 'late']);
    await logged('pod captured', 'late', mark);
    using _app = mesh().serve('late', 8081, doubling);
    const to = { ip: mesh().pod('late').ip, port: 8081 };
    using open = await dial(mesh(), 'client', to);
    await open.exchange('before');
    mark = agent.lines.length;
    mesh().enrol(['client', 'server']);
    assert.equal(await open.ended(), 'reset');
    await logged('pod released', 'late', mark);
    await refused(mesh(), 'client', to);
    const line = await agent.access('inbound', { 'dst.hbone_addr': `${to.ip}:8081` }, mark);
    assert.equal(line['error'], 'connection closed due to connection drain');
  },
);

test(
  'a port of the agent taken in a pod: that pod waits and says which; freed, it is captured',
  privileged,
  async () => {
    const agent = mesh().agent('n2');
    const taken = [
      ['late', 15_001],
      ['late2', 15_006],
      ['late3', 15_008],
    ] as const;
    const fds = taken.map(([pod, port]) =>
      mesh()
        .pod(pod)
        .inside.run(() => linuxSys.listenTcp(undefined, { address: '0.0.0.0', port })),
    );
    let mark = agent.lines.length;
    mesh().enrol(['client', 'server', 'late', 'late2', 'late3']);
    for (const [pod, port] of taken) {
      const line = await logged('pod not done, trying again', pod, mark);
      assert.equal(line['reason'], 'CV-BIND');
      assert.match(String(line['error']), new RegExp(`EADDRINUSE .*:${port}\\)`));
      assert.match(String(line['next']), /ss -ltnp/);
    }
    assert.equal((await agent.get('/healthz/ready', 15_021)).status, 500);
    // Nobody is redirected to listeners that are not there, and the neighbours do not suffer.
    using _late = mesh().serve('late', 8082, naming('late'));
    using _server = mesh().serve('server', 8082, naming('server'));
    assert.match(await ask(mesh(), 'outside', { ip: mesh().pod('late').ip, port: 8082 }), /^late/);
    assert.match(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8082 }), /^server/);

    mark = agent.lines.length;
    for (const { fd } of fds) linuxSys.close(fd);
    for (const [pod] of taken) await logged('pod captured', pod, mark);
    await mesh().ready('n2');
    mark = agent.lines.length;
    mesh().enrol(['client', 'server']);
    for (const [pod] of taken) await logged('pod released', pod, mark);
  },
);

test(
  'a namespace that vanished before enrolment: the pod waits with the path in the log, others are served',
  privileged,
  async () => {
    const agent = mesh().agent('n2');
    const mark = agent.lines.length;
    const gonePath = '/var/run/netns/vanished-before-enrolment';
    const records = [mesh().podRecord('server'), { ...mesh().podRecord('late'), netns: gonePath }];
    replaceFile(mesh().podsFile('n2'), JSON.stringify({ pods: records }));
    const line = await logged('pod not done, trying again', 'late', mark);
    assert.equal(line['reason'], 'CV-NETNS');
    assert.match(String(line['error']), /ENOENT/);
    assert.match(String(line['error']), new RegExp(gonePath));
    assert.match(String(line['next']), /enrolment is retried/);
    using _server = mesh().serve('server', 8083, naming('server'));
    assert.match(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8083 }), /^server/);
  },
);

test('a path that is no network namespace is refused by name', privileged, async () => {
  const agent = mesh().agent('n2');
  const mark = agent.lines.length;
  const path = `${mesh().lab.folder}/no-namespace`;
  writeFileSync(path, '');
  const records = [mesh().podRecord('server'), { ...mesh().podRecord('late'), netns: path }];
  replaceFile(mesh().podsFile('n2'), JSON.stringify({ pods: records }));
  const line = await logged('pod not done, trying again', 'late', mark);
  assert.equal(line['reason'], 'CV-NETNS');
  assert.match(String(line['error']), /no-namespace is not a network namespace/);
});

test(
  'a list of pods with a mistake is refused whole with its place, and the pods enrolled before stay',
  privileged,
  async () => {
    const agent = mesh().agent('n2');
    const mark = agent.lines.length;
    mesh().enrol(['client', 'server']);
    replaceFile(mesh().podsFile('n2'), '{"pods": [\n {"uid": "uid-server", "naem": "server"}\n]}');
    const isRefused = (line: Readonly<Record<string, unknown>>): boolean =>
      line['message'] === 'list of pods refused, the last good one stays';
    const line = await agent.line(isRefused, 'refusal of the list', mark);
    assert.match(String(line['error']), /pods-n2\.json:2:\d+: /);
    using _server = mesh().serve('server', 8084, naming('server'));
    assert.match(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8084 }), /^server/);
    mesh().enrol(['client', 'server']);
  },
);

test('rules that something else removed are put back, and traffic is captured again', privileged, async () => {
  const agent = mesh().agent('n2');
  const { inside, ip } = mesh().pod('server');
  const mark = agent.lines.length;
  await inside.exec(['nft', 'flush', 'ruleset']);
  await agent.line((line) => line.message === 'redirection repaired', 'repair', mark);
  using _server = mesh().serve('server', 8085, naming('server'));
  const client = new Client(await mesh().dial('outside', { ip, port: 8085 }));
  client.socket.end();
  await client.ended();
  assert.match(client.text, /^server/);
  await agent.access('inbound', { 'src.addr': client.address }, mark);
});
