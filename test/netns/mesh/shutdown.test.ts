import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestMesh } from '../../support/mesh.ts';
import { ask, type Client, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { until } from '../../support/until.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
/** More connections than have a line each. */
const FLOOD = 200;
const NODES = { n1: ['client'], n2: ['server'], n3: ['outside'] };

/** A mesh with one open connection through the agent of n2, which has begun to stop. */
async function stopping(stop: (mesh: TestMesh) => Promise<unknown> | void, drain = '120s') {
  await using undo = new AsyncDisposableStack();
  const mesh = undo.use(await TestMesh.start({ nodes: NODES, flags: ['--drain', drain] }));
  mesh.serve('server', 8080, doubling);
  const to = { ip: mesh.pod('server').ip, port: 8080 };
  const open = undo.use(await dial(mesh, 'client', to));
  const plain = undo.use(await dial(mesh, 'outside', to));
  await open.exchange('before');
  await plain.exchange('before');
  await stop(mesh);
  const agent = mesh.agent('n2');
  await agent.line((line) => line.message === 'draining', 'line that the agent drains');
  const cleanup = undo.move();
  return { mesh, agent, open, plain, to, [Symbol.asyncDispose]: () => cleanup.disposeAsync() };
}

async function stillWorks(client: Client): Promise<void> {
  const before = client.bytes;
  await client.exchange('still');
  assert.equal(client.bytes, before + 10);
}

test(
  'SIGTERM: open connections go on, new ones are refused, and the agent ends with the last of them',
  privileged,
  async () => {
    await using scene = await stopping((mesh) => mesh.agent('n2').kill('SIGTERM'));
    const { mesh, agent, open, plain, to } = scene;
    await stillWorks(open);
    await stillWorks(plain);
    await assert.rejects(dial(mesh, 'outside', to), (error: { fields?: { errno?: string } }) => {
      return error.fields?.errno === 'ECONNREFUSED';
    });
    using late = await dial(mesh, 'client', to);
    late.socket.write('hello');
    assert.equal(await late.ended(), 'reset');
    assert.equal(late.bytes, 0);
    await stillWorks(open);
    open.socket.end();
    plain.socket.end();
    assert.equal(await agent.exited, 0);
    assert.equal(await open.ended(), 'end');
  },
);

test(
  'SIGTERM with nothing open ends the agent without waiting for its grace, with exit code 0',
  privileged,
  async () => {
    await using mesh = await TestMesh.start({ nodes: { n1: ['client'] }, flags: ['--drain', '1h'] });
    mesh.agent('n1').kill('SIGTERM');
    assert.equal(await mesh.agent('n1').exited, 0);
  },
);

for (const workers of ['0', '1']) {
  test(
    `what was counted only in a flood is told before the agent ends (--workers ${workers})`,
    privileged,
    async () => {
      const flags = ['--workers', workers];
      await using mesh = await TestMesh.start({ nodes: { n1: ['client'], n2: ['outside'] }, flags });
      const agent = mesh.agent('n1');
      for (let i = 0; i < FLOOD; i++) {
        using silent = await dial(mesh, 'outside', { ip: mesh.pod('client').ip, port: 15_008 });
        silent.socket.end();
      }
      await until('all are refused', async () => {
        const { body } = await agent.get('/status');
        return JSON.parse(body).connections.refused['CV-TLS-HANDSHAKE'] === FLOOD;
      });
      agent.kill('SIGTERM');
      assert.equal(await agent.exited, 0);
      const refusals = agent.lines.filter(({ reason }) => reason === 'CV-TLS-HANDSHAKE');
      const told = refusals.reduce((sum, { count = 1 }) => sum + Number(count), 0);
      assert.equal(told, FLOOD);
    },
  );
}

test('the end of the grace cuts what is still open, says so, and ends the agent', privileged, async () => {
  await using scene = await stopping((mesh) => mesh.agent('n2').kill('SIGTERM'), '1s');
  const { agent, open, plain } = scene;
  assert.equal(await agent.exited, 0);
  assert.equal(await open.ended(), 'reset');
  assert.equal(await plain.ended(), 'reset');
  const lines = agent.lines.filter((line) => line['direction'] === 'inbound' && line.message === 'connection complete');
  assert.equal(lines.length, 2);
  for (const line of lines) {
    assert.equal(line['error'], 'connection closed due to connection drain');
    assert.equal(line['reason'], 'CV-DRAIN');
  }
});

test(
  'POST /quitquitquit stops the agent as SIGTERM does, and is answered when the drain is over',
  privileged,
  async () => {
    const answer = Promise.withResolvers<{ readonly status: number; readonly body: string }>();
    let isAnswered = false;
    await using scene = await stopping((mesh) => {
      mesh.agent('n2').post('/quitquitquit').then(answer.resolve, answer.reject);
      void answer.promise.finally(() => (isAnswered = true));
    });
    await stillWorks(scene.open);
    assert.equal(isAnswered, false);
    scene.open.socket.end();
    scene.plain.socket.end();
    assert.deepEqual(await answer.promise, { status: 200, body: 'shutdown now\n' });
    assert.equal(await scene.agent.exited, 0);
  },
);

test('a drain makes the agent unready, and can be watched at the admin port until it is over', privileged, async () => {
  await using scene = await stopping((mesh) => mesh.agent('n2').kill('SIGTERM'));
  const { status, body } = await scene.agent.get('/status');
  assert.equal(status, 200);
  assert.equal(JSON.parse(body).connections.live, 2);
  const readiness = await scene.agent.get('/healthz/ready', 15_021);
  assert.deepEqual([readiness.status, readiness.body], [500, 'not ready, pending: drain\n']);
  scene.open.socket.end();
  scene.plain.socket.end();
  assert.equal(await scene.agent.exited, 0);
});

test('a second SIGINT ends the agent at once', privileged, async () => {
  await using scene = await stopping((mesh) => mesh.agent('n2').kill('SIGINT'), '60s');
  scene.agent.kill('SIGINT');
  assert.equal(await scene.agent.exited, 0);
});

test(
  'while the agent of a pod restarts, its next instance takes over as soon as the old one has gone',
  privileged,
  async () => {
    await using scene = await stopping((mesh) => mesh.agent('n2').kill('SIGTERM'), '1s');
    assert.equal(await scene.agent.exited, 0);
    await scene.mesh.startAgent('n2');
    assert.equal(await ask(scene.mesh, 'client', scene.to, 'again'), 'againagain');
  },
);
