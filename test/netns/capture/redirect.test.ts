import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { skipWithoutRoot, TestNetns } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };
const wanted = { ipv4: true, ipv6: true, isIngressMode: false, rerouteInterfaces: [], dnsCapture: false };
const redirection = createRedirection(linuxSys);

/** Everything capture can leave behind, as text. */
async function traces(pod: TestNetns): Promise<string> {
  const rules = await pod.exec(['nft', 'list', 'ruleset']);
  const routing = await Promise.all(
    ['-4', '-6'].map(async (family) => {
      const rule = await pod.exec(['ip', family, 'rule']);
      const { stdout } = await pod.tryExec(['ip', family, 'route', 'show', 'table', '100']);
      return (
        rule
          .split('\n')
          .filter((line) => line.includes('32764'))
          .join('') + stdout
      );
    }),
  );
  return [rules, ...routing].join('').trim();
}

for (const families of ['v4', 'v6', 'dual'] as const) {
  test(`what was applied verifies, twice as well as once (${families})`, privileged, async () => {
    await using pod = await TestNetns.create(families);

    await redirection.apply(pod.handle, wanted);
    assert.deepEqual(await redirection.verify(pod.handle, wanted), []);
    const once = await traces(pod);
    await redirection.apply(pod.handle, wanted);

    assert.deepEqual(await redirection.verify(pod.handle, wanted), []);
    assert.equal(await traces(pod), once);
  });

  test(`removal leaves no table, rule or route, also when there was nothing (${families})`, privileged, async () => {
    await using pod = await TestNetns.create(families);
    await redirection.remove(pod.handle);
    await redirection.apply(pod.handle, wanted);
    assert.notEqual(await traces(pod), '');

    await redirection.remove(pod.handle);

    assert.equal(await traces(pod), '');
  });
}

test(
  'a namespace that is tracked first redirects nothing yet, and is captured and released as any other',
  privileged,
  async () => {
    await using pod = await TestNetns.create();
    await redirection.track(pod.handle);
    assert.doesNotMatch(await traces(pod), /redirect/);
    const tracked = await traces(pod);
    await redirection.track(pod.handle);
    assert.equal(await traces(pod), tracked);

    await redirection.apply(pod.handle, wanted);
    assert.deepEqual(await redirection.verify(pod.handle, wanted), []);
    await redirection.track(pod.handle);
    assert.deepEqual(await redirection.verify(pod.handle, wanted), []);
    await redirection.remove(pod.handle);
    assert.equal(await traces(pod), '');
  },
);

const tamperings: Readonly<Record<string, readonly string[]>> = {
  'all rules flushed': ['nft', 'flush', 'ruleset'],
  'one table deleted': ['nft', 'delete', 'table', 'inet', 'istio-ambient-mangle'],
  'one chain emptied': ['nft', 'flush', 'chain', 'inet', 'istio-ambient-nat', 'istio-output'],
  'a rule put before ours': ['nft', 'insert rule inet istio-ambient-nat istio-output tcp dport 80 accept'],
  'the base chain bypassed': ['nft', 'flush', 'chain', 'inet', 'istio-ambient-nat', 'output'],
  'the IPv4 policy rule deleted': ['ip', 'rule', 'del', 'pref', '32764'],
  'the IPv6 policy rule deleted': ['ip', '-6', 'rule', 'del', 'pref', '32764'],
  'the IPv4 route deleted': ['ip', 'route', 'flush', 'table', '100'],
  'the IPv6 route deleted': ['ip', '-6', 'route', 'flush', 'table', '100'],
};

for (const [what, argv] of Object.entries(tamperings)) {
  test(`${what}: found and repaired`, privileged, async () => {
    await using pod = await TestNetns.create();
    await redirection.apply(pod.handle, wanted);
    const before = await traces(pod);
    await pod.exec(argv);

    assert.notDeepEqual(await redirection.verify(pod.handle, wanted), []);
    await redirection.apply(pod.handle, wanted);

    assert.deepEqual(await redirection.verify(pod.handle, wanted), []);
    assert.equal(await traces(pod), before);
  });
}

test('rules for other options are found to differ', privileged, async () => {
  await using pod = await TestNetns.create();
  await redirection.apply(pod.handle, wanted);
  for (const other of [
    { ...wanted, isIngressMode: true },
    { ...wanted, rerouteInterfaces: ['tap0'] },
    { ...wanted, dnsCapture: true },
    { ...wanted, exempt: { gid: 1337, ports: [15_020, 15_021] } },
    { ...wanted, ipv6: false },
  ]) {
    assert.notDeepEqual(await redirection.verify(pod.handle, other), []);
    await redirection.apply(pod.handle, other);
    assert.deepEqual(await redirection.verify(pod.handle, other), []);
  }
});

test('tables of others in the pod stay as they are', privileged, async () => {
  await using pod = await TestNetns.create();
  const theirs = 'table ip theirs {\n\tchain c {\n\t\ttcp dport 1 counter packets 0 bytes 0 accept\n\t}\n}\n';
  await pod.exec(['nft', '-f', '-'], theirs);

  await redirection.apply(pod.handle, wanted);
  assert.deepEqual(await redirection.verify(pod.handle, wanted), []);
  await redirection.remove(pod.handle);

  assert.equal(await pod.exec(['nft', 'list', 'ruleset']), theirs);
});
