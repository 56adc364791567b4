/** What happens to one worker stays with it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { metricsOf } from '../../support/metric-text.ts';
import {
  agent,
  calm,
  connections,
  endsOf,
  faults,
  MANY,
  privileged,
  recovered,
  sorted,
  status,
} from './worker-mesh.ts';

for (const { fault, cause, reason } of [
  { fault: 'throw', cause: 'defect', reason: 'CV-BUG' },
  { fault: 'exhaust', cause: 'memory', reason: 'CV-WORKER' },
  { fault: 'spin', cause: 'hung', reason: 'CV-WORKER' },
] as const) {
  test(
    `a worker that ends (${cause}) takes its own connections only, and another takes its place`,
    privileged,
    async () => {
      const restartsBefore = (await status()).workers.reduce((all, worker) => all + worker.restarts, 0);
      await calm();
      using clients = await connections(MANY);
      const before = await status();
      const metricBefore = await metricsOf(agent());
      const mark = agent().lines.length;

      await faults.inject(fault, 'worker-1');
      await agent().line((line) => line.message === 'data-plane worker ended, its connections with it', 'end', mark);
      const { alive, cut } = await sorted(clients);

      assert.deepEqual(
        [cut.length, alive.length],
        before.workers.map((worker) => worker.connections),
      );
      const lines = await endsOf(cut, mark);
      assert.equal(lines.length, cut.length);
      assert(lines.every((line) => line['reason'] === reason && line['direction'] === 'inbound'));
      await recovered(restartsBefore + 1);
      for (const client of alive) assert.equal((await client.exchange('x')).length % 2, 0);
      const metric = await metricsOf(agent());
      assert.equal(metric('culvert_worker_restarts_total', { cause }), 1);
      assert.equal(
        metric('culvert_refusals_total', { reason }) - metricBefore('culvert_refusals_total', { reason }),
        cut.length,
      );
      for (const name of ['opened', 'closed'] as const) {
        const counter = `istio_tcp_connections_${name}_total`;
        assert(metric(counter) >= metricBefore(counter), `${counter} went backwards`);
      }
      assert.equal(
        metric('istio_tcp_connections_opened_total') - metric('istio_tcp_connections_closed_total'),
        alive.length,
      );
      const left = agent().lines.length;
      for (const client of alive) client.socket.end();
      assert.equal((await endsOf(alive, left)).length, alive.length);
    },
  );
}
