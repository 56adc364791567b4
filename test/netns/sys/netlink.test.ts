import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { linuxSys } from '../../../src/sys/linux.ts';
import { skipWithoutRoot, TestNetns } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 20_000 };
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
