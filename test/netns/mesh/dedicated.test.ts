import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAIN } from '../../support/agent-process.ts';
import { identityOf, meshForFile, NAMESPACE } from '../../support/mesh.ts';
import { ask, Client, dial, doubling, naming, refused } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
/** The one without root and without capabilities; others redirect to it by who sends. */
const UNPRIVILEGED = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--regid=1337', '--clear-groups'];

/** `one` and `two` have a sidecar each, `server` an agent in shared mode, `outside` nothing. */
const mesh = meshForFile(
  {
    nodes: { n1: ['one', 'two'], n2: ['server'], n3: ['outside', 'lone'] },
    enrolled: ['server'],
    mesh: (started) => ({ workloads: started.workloads({ lone: { protocol: 'HBONE' } }) }),
  },
  async (started) => {
    for (const pod of ['one', 'two']) started.spawnSidecar(pod);
    for (const pod of ['one', 'two']) {
      await started.agent(pod).line(({ message }) => message === 'pod captured', `line that ${pod} is captured`);
    }
  },
);

function ipOf(pod: string): string {
  return mesh().pod(pod).ip;
}

const MUTUAL = [
  ['one', 'two'],
  ['one', 'server'],
  ['server', 'two'],
] as const;

for (const [from, to] of MUTUAL) {
  test(`${from} reaches ${to} through HBONE: a sidecar is to others what an agent is`, privileged, async () => {
    using _app = mesh().serve(to, 8080, doubling);
    using client = await dial(mesh(), from, { ip: ipOf(to), port: 8080 });
    client.socket.end('hello world');
    assert.equal(await client.ended(), 'end');
    assert.equal(client.text, 'hello worldhello world');
    const near = await (from === 'server' ? mesh().agent('n2') : mesh().agent(from)).access('outbound', {
      'src.addr': client.address,
    });
    const far = await (to === 'server' ? mesh().agent('n2') : mesh().agent(to)).access('inbound', {
      'dst.hbone_addr': `${ipOf(to)}:8080`,
      'src.workload': from,
    });
    for (const line of [near, far]) {
      assert.deepEqual(
        [line['src.identity'], line['dst.identity'], line['error']],
        [identityOf(from), identityOf(to), undefined],
      );
    }
  });
}

test('the application behind a sidecar sees the address of its client', privileged, async () => {
  using _app = mesh().serve('two', 8081, naming('two'));
  assert.equal(await ask(mesh(), 'one', { ip: ipOf('two'), port: 8081 }), `two sees ${ipOf('one')}\n`);
  assert.equal(await ask(mesh(), 'outside', { ip: ipOf('two'), port: 8081 }), `two sees ${ipOf('outside')}\n`);
});

test('a sidecar reaches an uncaptured server in plaintext, logged without identities', privileged, async () => {
  using _app = mesh().serve('outside', 8082, doubling);
  using client = await dial(mesh(), 'one', { ip: ipOf('outside'), port: 8082 });
  assert.equal(await client.exchange('hello'), 'hellohello');
  client.socket.end();
  const line = await mesh().agent('one').access('outbound', { 'src.addr': client.address });
  assert.deepEqual(
    [line['dst.addr'], line['src.identity'], line['dst.identity']],
    [`${ipOf('outside')}:8082`, undefined, undefined],
  );
});

test('an uncaptured client is served in plaintext, and judged by policy', privileged, async () => {
  using _app = mesh().serve('two', 8083, doubling);
  using client = await dial(mesh(), 'outside', { ip: ipOf('two'), port: 8083 });
  assert.equal(await client.exchange('hello'), 'hellohello');
  const only = [[[{ principals: [{ Exact: `cluster.local/ns/${NAMESPACE}/sa/one` }] }]]];
  const fields = { namespace: NAMESPACE, scope: 'Namespace', action: 'Allow', dryRun: false, rules: only };
  await mesh().update({ policies: [{ name: 'only-one', ...fields }] });
  assert.equal(await client.ended(), 'reset');
  await refused(mesh(), 'outside', { ip: ipOf('two'), port: 8083 });
  assert.equal(await ask(mesh(), 'one', { ip: ipOf('two'), port: 8083 }, 'still'), 'stillstill');
  await mesh().update({});
});

test('servers of the sidecar itself answer whoever asks them, policy or not', privileged, async () => {
  const nobody = {
    name: 'nobody',
    namespace: NAMESPACE,
    scope: 'Namespace',
    action: 'Allow',
    dryRun: false,
    rules: [],
  };
  await mesh().update({ policies: [nobody] });
  using client = await dial(mesh(), 'outside', { ip: ipOf('one'), port: 15_021 });
  client.socket.write('GET /healthz/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await client.ended();
  assert.match(client.text, /^HTTP\/1\.1 200 /);
  await mesh().update({});
});

test('what the sidecar’s group sends is its own business: such connections are not captured', privileged, async () => {
  using _app = mesh().serve('server', 8084, (socket) => socket.end('in clear'));
  const dialler = `require('net').connect(8084, '${ipOf('server')}').pipe(process.stdout)`;
  const argv = ['setpriv', '--regid=1337', '--clear-groups', process.execPath, '-e', dialler];
  const { stdout } = await mesh().pod('one').inside.exec(argv);
  assert.equal(stdout, 'in clear');
  const line = await mesh()
    .agent('n2')
    .access('inbound', { 'dst.addr': `${ipOf('server')}:8084` });
  assert.equal(line['src.identity'], undefined);
});

test('a sidecar without rules of its own needs no right, and serves what reaches it', privileged, async () => {
  const sidecar = mesh().spawnSidecar('lone', ['--redirect', 'none'], { prefix: UNPRIVILEGED });
  await sidecar.line(({ message }) => message.startsWith('pod served'), 'line that the pod is served');
  await mesh().ready('lone');
  using _app = mesh().serve('lone', 8085, naming('lone'));
  // Nobody promised a way back for borrowed addresses: the application sees its sidecar.
  assert.equal(await ask(mesh(), 'server', { ip: ipOf('lone'), port: 8085 }), `lone sees ${ipOf('lone')}\n`);
  const line = await sidecar.access('inbound', { 'dst.hbone_addr': `${ipOf('lone')}:8085` });
  assert.equal(line['src.identity'], identityOf('server'));
  // By who sends, as environments of the reference's dedicated mode do it.
  const rules = [
    'add table ip by-sender',
    'add chain ip by-sender output { type nat hook output priority -100; }',
    'add rule ip by-sender output oifname != "lo" meta l4proto tcp meta skgid != 1337 redirect to :15001',
  ];
  const { code, stderr } = await mesh().pod('lone').inside.exec(['nft', '-f', '-'], rules.join('\n'));
  assert.equal(code, 0, stderr);
  using _server = mesh().serve('server', 8086, naming('server'));
  assert.equal(await ask(mesh(), 'lone', { ip: ipOf('server'), port: 8086 }), `server sees ${ipOf('lone')}\n`);
  const outbound = await sidecar.access('outbound', { 'dst.hbone_addr': `${ipOf('server')}:8086` });
  assert.equal(outbound['src.identity'], identityOf('lone'));
});

test('a sidecar that stops drains; its rules refuse until they are released', privileged, async () => {
  using _app = mesh().serve('server', 8087, doubling);
  const to = { ip: ipOf('server'), port: 8087 };
  using open = await dial(mesh(), 'two', to);
  await open.exchange('before');
  const sidecar = mesh().agent('two');
  sidecar.kill('SIGTERM');
  await sidecar.line(({ message }) => message === 'draining', 'line that the sidecar drains');
  await open.exchange('still');
  open.socket.end();
  assert.equal(await sidecar.exited, 0);
  await assert.rejects(
    dial(mesh(), 'two', to),
    (error: { fields?: { errno?: string } }) => error.fields?.errno === 'ECONNREFUSED',
  );

  const { code, stderr } = await mesh().pod('two').inside.exec([process.execPath, MAIN, 'sidecar', '--release']);
  assert.equal(code, 0, stderr);
  using direct = new Client(await mesh().dial('two', to));
  assert.equal(await direct.exchange('clear'), 'clearclear');
  direct.socket.end();
  const line = await mesh()
    .agent('n2')
    .access('inbound', { 'dst.addr': `${to.ip}:${to.port}` });
  assert.equal(line['src.identity'], undefined);
});
