import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inbound, outbound, trafficFixture } from '../telemetry/traffic-fixture.ts';
import { culvert, fakeAgent } from './cli-fixture.ts';

/** One connection that can move, idle since a minute, and two that cannot. */
async function agentWithThree(holdMs = 3_600_000) {
  const { traffic, clock } = trafficFixture();
  const plain = traffic.open({ ...outbound, id: 'plain', protocol: 'TCP' });
  clock.advance(60_000);
  plain.addClientBytes(1);
  clock.advance(61_000);
  traffic.open({ ...inbound, id: 'tunnel', protocol: 'HBONE' });
  traffic.open({ ...outbound, id: 'far', protocol: 'DOUBLEHBONE' });
  const obstacles: Readonly<Record<string, object>> = {
    tunnel: { obstacle: 'tunnel' },
    far: { obstacle: 'tunnel' },
  };
  const open = traffic.live().map((view) => ({ ...view, ...obstacles[view.id] }));
  return await fakeAgent({ '/connections': { open, refused: [] }, '/status': { handOver: { holdMs } } });
}

test('the plan of an upgrade says of each connection what becomes of it, why, and since when it is idle', async () => {
  await using agent = await agentWithThree();
  const { code, out } = await agent.ask(['upgrade', '--plan', '-o', 'json']);
  const plan: Record<string, unknown>[] = JSON.parse(out);
  assert.equal(code, 0);
  assert.deepEqual(
    plan.map(({ id, fate, why, ageMs, idleMs }) => [id, fate, typeof why, ageMs, idleMs]),
    [
      ['plain', 'moves', 'undefined', 121_000, 61_000],
      ['tunnel', 'held', 'string', 0, 0],
      ['far', 'held', 'string', 0, 0],
    ],
  );
});

test('the plan has its own reason for each thing that keeps a connection', async () => {
  const { traffic } = trafficFixture();
  const kept = ['tunnel', 'half-closed', 'read-ahead', 'unread', 'dialling'];
  for (const id of kept) traffic.open({ ...inbound, id, protocol: 'HBONE' });
  const open = traffic.live().map((view) => ({ ...view, obstacle: view.id }));
  await using agent = await fakeAgent({
    '/connections': { open, refused: [] },
    '/status': { handOver: { holdMs: 3_600_000 } },
  });
  const { out } = await agent.ask(['upgrade', '--plan', '-o', 'json']);
  const plan: Record<string, unknown>[] = JSON.parse(out);
  assert.deepEqual(new Set(plan.map(({ fate }) => fate)), new Set(['held']));
  assert.equal(new Set(plan.map(({ why }) => why)).size, kept.length);
});

test('what could only be held is cut when nothing is to be held', async () => {
  await using agent = await agentWithThree(0);
  const { out } = await agent.ask(['upgrade', '--plan']);
  assert.match(out, /\ncut +\S.* through the gateway of another network/);
  assert.match(out, /\n1 would move, 0 would be held, 2 would be cut\.\n$/);
});

test('the plan is grouped by fate, and ends with its sum', async () => {
  await using agent = await agentWithThree();
  const { out } = await agent.ask(['upgrade', '--plan']);
  const lines = out.split('\n');
  assert.deepEqual(
    lines.map((line) => /^\w+/.exec(line)?.[0]),
    ['FATE', 'moves', undefined, 'FATE', 'held', 'held', undefined, '1', undefined],
  );
  assert.match(lines[1] ?? '', / 2m1s +1m1s +plain$/);
  assert.match(out, /\n1 would move, 2 would be held \(for up to 1h\), 0 would be cut\.\n$/);
});

test('the short plan has a row for each workload, fate and reason', async () => {
  await using agent = await agentWithThree();
  const { out } = await agent.ask(['upgrade', '--plan', '-o', 'short']);
  assert.match(out, /^FATE +WORKLOAD +CONNECTIONS +OLDEST +LEAST IDLE +WHY\nmoves +\S+ +1 +2m1s +1m1s\nheld /);
});

test('upgrade without --plan says how an upgrade is made', async () => {
  const { code, err } = await culvert(['upgrade']);
  assert.equal(code, 2);
  assert.match(err, /--take-over true/);
});
