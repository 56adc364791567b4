import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inbound, outbound, trafficFixture } from '../telemetry/traffic-fixture.ts';
import { culvert, fakeAgent } from './cli-fixture.ts';

async function agentWithBoth() {
  const { traffic } = trafficFixture();
  traffic.open({ ...inbound, id: 'tunnel', protocol: 'HBONE' });
  traffic.open({ ...outbound, id: 'plain', protocol: 'TCP' });
  return await fakeAgent({ '/connections': { open: traffic.live(), refused: [] } });
}

test('the plan of an upgrade says which connections move and which are held', async () => {
  await using agent = await agentWithBoth();
  const { code, out } = await agent.ask(['upgrade', '--plan', '-o', 'json']);
  const plan: { readonly id: string; readonly fate: string }[] = JSON.parse(out);
  assert.equal(code, 0);
  assert.deepEqual(Object.fromEntries(plan.map(({ id, fate }) => [id, fate])), { tunnel: 'held', plain: 'moves' });
});

test('the plan of an upgrade ends with its sum', async () => {
  await using agent = await agentWithBoth();
  const { out } = await agent.ask(['upgrade', '--plan']);
  assert.match(out, /^FATE +WORKLOAD/);
  assert.match(out, /\n1 would move, 1 would be held, none would be cut\.\n$/);
});

test('upgrade without --plan says how an upgrade is made', async () => {
  const { code, err } = await culvert(['upgrade']);
  assert.equal(code, 2);
  assert.match(err, /--take-over true/);
});
