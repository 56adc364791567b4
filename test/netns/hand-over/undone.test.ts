import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { replaceFile, TestMesh } from '../../support/mesh.ts';
import { ask } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo } from '../../support/numbered.ts';

const PORT = 8080;

/** Looked at now and again; the time-out of the test ends it. */
async function until(isTrue: () => Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await sleep(50);
}

test('a successor that is stopped before it has the node gives it back at once, and ends what it took in order', {
  skip: skipWithoutRoot,
  timeout: 120_000,
}, async () => {
  await using mesh = await TestMesh.start({
    nodes: { n2: ['server'], n3: ['outside', 'outside2'] },
    flags: ['--drain', '2m'],
  });
  mesh.serve('server', PORT, echo);
  const giver = mesh.agent('n2');
  // A pod that cannot be captured keeps the successor from being ready.
  const broken = { ...mesh.podRecord('server'), uid: 'uid-broken', name: 'broken', netns: '/run/netns/none' };
  replaceFile(mesh.podsFile('n2'), JSON.stringify({ pods: [mesh.podRecord('server'), broken] }));
  const to = { ip: mesh.pod('server').ip, port: PORT };
  const open = (await mesh.dial('outside', to)).resume();
  open.write('before');
  await once(open, 'data');
  const mark = giver.lines.length;

  const heir = mesh.spawnSecondAgent('n2', ['--take-over', 'true']);
  await mesh.captured('server', heir);
  await until(async () => (await metricsOf(heir))('culvert_hand_over_connections_total', { fate: 'moved' }) === 1);
  heir.kill('SIGTERM');

  await giver.line(({ message }) => message.startsWith('the successor is gone'), 'line that it is gone', mark);
  // Its listeners are there again a moment after it has said so.
  await until(() =>
    ask(mesh, 'outside2', to, 'new').then(
      (answer) => answer === 'new',
      () => false,
    ),
  );
  assert.ok(heir.isRunning, 'it still drains what it took');
  open.write('after');
  await once(open, 'data');
  open.end();
  assert.equal(await heir.exited, 0);
  assert.equal((await heir.access('inbound', { bytes_recv: 'beforeafter'.length })).message, 'connection complete');
  assert.equal(await ask(mesh, 'outside2', to, 'still'), 'still');
});
