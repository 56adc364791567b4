import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Readiness, startReadinessServer } from '../../../src/agent/admin/readiness.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ask } from './http.ts';

const anywhere = { host: '127.0.0.1', port: 0, clock: systemClock, log: silentLogger };

function fixture() {
  const readiness = new Readiness({ clock: new FakeClock(), log: silentLogger });
  readiness.begin('workload proxy manager');
  readiness.begin('state manager');
  return readiness;
}

test('the probe names what is pending, sorted, and turns ready, and back', async () => {
  const readiness = fixture();
  await using server = await startReadinessServer({ ...anywhere, readiness });
  const probe = async () => {
    const { status, text } = await ask(server.port, '/healthz/ready');
    return [status, text];
  };
  assert.deepEqual(await probe(), [500, 'not ready, pending: state manager, workload proxy manager\n']);
  readiness.complete('state manager');
  assert.deepEqual(await probe(), [500, 'not ready, pending: workload proxy manager\n']);
  readiness.complete('workload proxy manager');
  assert.deepEqual(await probe(), [200, 'ready\n']);
  readiness.begin('workload proxy manager');
  assert.deepEqual(await probe(), [500, 'not ready, pending: workload proxy manager\n']);
});

for (const [method, path, status] of [
  ['HEAD', '/healthz/ready', 405],
  ['POST', '/healthz/ready', 405],
  ['GET', '/healthz/ready/', 404],
  ['GET', '/', 404],
  ['POST', '/metrics', 404],
] as const) {
  test(`readiness: ${method} ${path} answers ${status}`, async () => {
    await using server = await startReadinessServer({ ...anywhere, readiness: fixture() });
    assert.equal((await ask(server.port, path, { method })).status, status);
  });
}
