/** What the agent that comes asks the one that leaves, pod by pod and stream by stream. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeLease } from '../../../src/agent/hand-over/lease.ts';
import { NO_NEEDS } from '../../../src/proxy/inheritance.ts';
import { closeFd } from '../../../src/sys/duplicate.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { GivingNode, POD } from './giving-node.ts';

const timed = { timeout: 90_000 };
const PROXY = { warm: async () => {}, adopt: async () => {} };

async function leaseOf({ folder }: GivingNode): Promise<NodeLease> {
  const options = { runDir: folder, isTakeOver: true, build: 'test' };
  return await NodeLease.take(options, { sys: linuxSys, clock: systemClock, log: {} });
}

test(
  'a pod that is tried again, as it could not be served, has nothing to take, and the hand-over goes on',
  timed,
  async () => {
    await using node = await GivingNode.start();
    using lease = await leaseOf(node);
    const { listeners } = await lease.inherit(node.key);
    for (const { fd } of listeners) closeFd(fd);

    assert.deepEqual((await lease.inherit(node.key)).listeners, []);

    await lease.follow(node.key, PROXY, NO_NEEDS);
    assert.equal(await lease.settle(Promise.resolve()), 'complete');
    assert.deepEqual([listeners.length, node.results], [1, ['complete']]);
  },
);

test('of clients that look for their streams at once 64 are asked for, the others later', timed, async () => {
  await using node = await GivingNode.start();
  using lease = await leaseOf(node);
  for (const { fd } of (await lease.inherit(node.key)).listeners) closeFd(fd);
  await lease.follow(node.key, PROXY, NO_NEEDS);
  node.claimed.push(...Array.from({ length: 100 }, () => 'nowhere' as const));
  const question = { authority: '192.0.2.2:80', peerIdentity: 'spiffe://cluster.local/ns/default/sa/client' };
  const claim = { podUid: POD.uid, token: '0'.repeat(32), question };

  const answers = await Promise.all(Array.from({ length: 70 }, () => lease.claim(node.key, claim)));

  assert.equal(answers.filter((answer) => answer === 'later').length, 6);
  assert.equal(node.asked.length, 64);
  assert.equal(await lease.claim(node.key, claim), 'nowhere');
});
