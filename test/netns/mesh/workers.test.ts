/** Traffic in worker threads: spread over them, and seen as one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dial } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { agent, calm, connections, endsOf, MANY, mesh, privileged, server, status } from './worker-mesh.ts';

test('connections to one pod are spread over the workers, and the views have all of them', privileged, async () => {
  await calm();
  using clients = await connections(MANY);
  const { workers, connections: totals } = await status();
  assert.deepEqual(
    workers.map(({ name, state, restarts }) => [name, state, restarts]),
    [
      ['worker-1', 'running', 0],
      ['worker-2', 'running', 0],
    ],
  );
  assert(workers.every((worker) => worker.connections > 0));
  assert.equal(totals.live, MANY);
  const { open } = JSON.parse((await agent().get('/connections')).body);
  assert.equal(open.length, MANY);
  const [{ id }] = open;
  assert.equal(JSON.parse((await agent().get(`/explain?id=${id}`)).body).connection.id, id);
  const metric = await metricsOf(agent());
  assert.equal(metric('istio_tcp_connections_opened_total') - metric('istio_tcp_connections_closed_total'), MANY);
  const mark = agent().lines.length;
  for (const client of clients) client.socket.end();
  const lines = await endsOf(clients, mark);
  assert.equal(lines.length, MANY);
  assert(lines.every((line) => line['bytes_sent'] === 10 && line['bytes_recv'] === 5));
});

test('captured pods reach each other whichever workers serve them', privileged, async () => {
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      using client = await dial(mesh(), 'client', server());
      assert.equal(await client.exchange('hello'), 'hellohello');
    }),
  );
});

test('a log filter set at the admin port reaches the workers', privileged, async () => {
  const mark = agent().lines.length;
  const { status: code } = await agent().post('/logging?level=access=debug');
  assert.equal(code, 200);
  using client = await dial(mesh(), 'outside', server());
  await client.exchange('hello');
  await agent().line(
    (line) => line.message === 'connection opened' && line['src.addr'] === client.address,
    'line of the opened connection',
    mark,
  );
  await agent().post('/logging?reset');
});

test('a CPU profile names the threads it was taken of', privileged, async () => {
  const all = await agent().get('/debug/pprof/profile?seconds=1');
  for (const name of ['main', 'worker-1', 'worker-2']) assert(all.body.includes(`thread ${name}`), name);
  const one = await agent().get('/debug/pprof/profile?seconds=1&thread=worker-2');
  assert(one.body.includes('thread worker-2') && !one.body.includes('thread worker-1'));
  const none = await agent().get('/debug/pprof/profile?seconds=1&thread=worker-9');
  assert.equal(none.status, 400);
});

test('an agent that is told to stop drains all workers, and loses no line', privileged, async () => {
  await calm();
  using clients = await connections(MANY);
  const mark = agent().lines.length;
  agent().kill('SIGTERM');
  await agent().line((line) => line.message === 'draining', 'line that it drains', mark);
  for (const client of clients.slice(0, MANY / 2)) client.socket.end('bye');
  assert.equal(await agent().exited, 0);
  const ends = agent()
    .lines.slice(mark)
    .filter((line) => line.message === 'connection complete')
    .map((line) => String(line['src.addr']));
  assert.deepEqual(ends.toSorted(), clients.map(({ address }) => address).toSorted());
});
