/** Traffic does not wait for the main thread. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { dial } from '../../support/mesh-traffic.ts';
import { agent, connections, faults, MANY, mesh, privileged, server, status } from './worker-mesh.ts';

test('while the main thread stands still, connections go on and known ones begin', privileged, async () => {
  const target = server();
  // Both workers get to know both ways.
  for (let known = 0; known < MANY / 2; known++) {
    using captured = await dial(mesh(), 'client', target);
    await captured.exchange('known');
  }
  (await connections(MANY / 2))[Symbol.dispose]();
  using established = await dial(mesh(), 'client', target);
  await established.exchange('before');

  using block = await faults.inject('block', 'main');
  let isMainBack = false;
  const answer = agent()
    .get('/healthz/ready', 15_021)
    .then(() => (isMainBack = true));
  for (let second = 0; second < 5; second++) {
    await established.exchange('meanwhile');
    using captured = await dial(mesh(), 'client', target);
    await captured.exchange('new');
    using uncaptured = await dial(mesh(), 'outside', target);
    await uncaptured.exchange('new');
    await sleep(1_000);
  }
  assert.equal(isMainBack, false, 'the main thread was blocked all the time');
  block[Symbol.dispose]();
  await answer;
  await established.exchange('after');
  const { workers } = await status();
  assert(workers.every(({ state }) => state === 'running'));
});
