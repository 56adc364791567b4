import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { linuxSys } from '../../../src/sys/linux.ts';
import { skipWithoutRoot, TestNetns } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };
const RULE = ['fwmark', '0x111/0xfff', 'pref', '32764', 'lookup', '100'];
const TABLE = 'table inet t { chain c { type filter hook input priority 0; }; }';

const changes: Readonly<Record<string, readonly string[]>> = {
  'an nft table': ['nft', TABLE],
  'an nft rule': ['nft', 'add rule inet before c accept'],
  'nft rules flushed': ['nft', 'flush', 'ruleset'],
  'an IPv4 policy rule': ['ip', 'rule', 'add', ...RULE],
  'an IPv6 policy rule': ['ip', '-6', 'rule', 'add', ...RULE],
  'an IPv4 route': ['ip', 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '100'],
  'an IPv6 route': ['ip', '-6', 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '100'],
};

for (const [what, argv] of Object.entries(changes)) {
  test(`${what} changes the fingerprint, and looking does not`, privileged, async () => {
    await using pod = await TestNetns.create();
    await pod.exec(['nft', 'table inet before { chain c { }; }']);
    const before = linuxSys.fingerprint(pod.handle, 100);
    await pod.exec(['nft', 'list', 'ruleset']);
    await pod.exec(['ip', 'route', 'add', '192.0.2.0/24', 'dev', 'lo']);
    assert.equal(linuxSys.fingerprint(pod.handle, 100), before);

    await pod.exec(argv);
    assert.notEqual(linuxSys.fingerprint(pod.handle, 100), before);
  });
}

test('taking fingerprints leaves no descriptor open', privileged, async () => {
  await using pod = await TestNetns.create();
  linuxSys.fingerprint(pod.handle, 100);
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 50; i++) linuxSys.fingerprint(pod.handle, 100);
  assert.equal(readdirSync('/proc/self/fd').length, before);
});

for (const family of [4, 6] as const) {
  const route = { family, mark: 0x111, mask: 0xfff, preference: 32_764, table: 100 };

  test(
    `an IPv${family} policy route is what iproute2 would have made, and is found and removed likewise`,
    privileged,
    async () => {
      await using ours = await TestNetns.create();
      await using theirs = await TestNetns.create();
      linuxSys.addPolicyRoute(ours.handle, route);
      linuxSys.addPolicyRoute(ours.handle, route);
      await theirs.exec(['ip', `-${family}`, 'rule', 'add', ...RULE]);
      await theirs.exec(['ip', `-${family}`, 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '100']);

      assert.equal(await routing(ours, family), await routing(theirs, family));
      assert.deepEqual(linuxSys.policyRouteState(theirs.handle, route), { hasRule: true, hasRoute: true });
      assert.deepEqual(linuxSys.policyRouteState(theirs.handle, { ...route, mark: 0x112 }), {
        hasRule: false,
        hasRoute: true,
      });
      linuxSys.removePolicyRoute(theirs.handle, route);
      linuxSys.removePolicyRoute(theirs.handle, route);
      assert.deepEqual(linuxSys.policyRouteState(theirs.handle, route), { hasRule: false, hasRoute: false });
      await using fresh = await TestNetns.create();
      assert.equal(await routing(theirs, family), await routing(fresh, family));
    },
  );

  test(`of an IPv${family} policy route only what is missing is added`, privileged, async () => {
    await using pod = await TestNetns.create();
    await pod.exec(['ip', `-${family}`, 'rule', 'add', ...RULE]);
    assert.deepEqual(linuxSys.policyRouteState(pod.handle, route), { hasRule: true, hasRoute: false });
    linuxSys.addPolicyRoute(pod.handle, route);
    assert.deepEqual(linuxSys.policyRouteState(pod.handle, route), { hasRule: true, hasRoute: true });
    assert.equal((await routing(pod, family)).match(/32764/g)?.length, 1);
  });
}

async function routing(pod: TestNetns, family: 4 | 6): Promise<string> {
  const rules = await pod.exec(['ip', `-${family}`, 'rule']);
  return rules + (await pod.tryExec(['ip', `-${family}`, 'route', 'show', 'table', '100'])).stdout;
}
