import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { createRedirectionCheck } from '../../../src/capture/redirect-check.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { CNI_RULES } from '../../support/cni-agent.ts';
import { skipWithoutRoot, TestNetns, Wire } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const redirection = createRedirection(linuxSys);
const check = createRedirectionCheck(linuxSys);

/** The NAT rules of istio-cni's iptables backend. */
function iptablesRules(loopback: string): string {
  return `*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT ! -d ${loopback} -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d ${loopback} -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d ${loopback} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
`;
}

async function addRoutes(netns: TestNetns): Promise<void> {
  for (const argv of [
    ['ip', 'rule', 'add', 'fwmark', '0x111/0xfff', 'pref', '32764', 'lookup', '100'],
    ['ip', 'route', 'add', 'local', '0.0.0.0/0', 'dev', 'lo', 'table', '100'],
    ['ip', '-6', 'rule', 'add', 'fwmark', '0x111/0xfff', 'pref', '32764', 'lookup', '100'],
    ['ip', '-6', 'route', 'add', 'local', '::/0', 'dev', 'lo', 'table', '100'],
  ]) {
    await netns.exec(argv);
  }
}

/** A pod with addresses of both families. */
async function inPod(body: (netns: TestNetns) => Promise<void>): Promise<void> {
  await using wire = await Wire.create('dual');
  const { netns } = await wire.addPod();
  await body(netns);
}

async function gaps(netns: TestNetns): Promise<readonly string[]> {
  const { gaps: found, unknown } = await check.look(netns.handle);
  assert.equal(unknown, undefined);
  return found.map(({ direction, text }) => `${direction}: ${text}`);
}

const OUT4 = 'outbound: IPv4 connections that the pod makes';
const OUT6 = 'outbound: IPv6 connections that the pod makes';
const IN4 = 'inbound: IPv4 connections to the pod in plaintext (as wanted only with bypass-inbound-capture)';
const IN6 = IN4.replace('IPv4', 'IPv6');

test('the nftables rules of this repository leave no gap; without them there are all', privileged, async () => {
  await inPod(async (netns) => {
    assert.deepEqual(await gaps(netns), [OUT4, OUT6, IN4, IN6]);
    await redirection.apply(netns.handle, CNI_RULES);
    assert.deepEqual(await gaps(netns), []);
    await netns.exec(['nft', 'flush', 'chain', 'inet', 'istio-ambient-nat', 'istio-output']);
    assert.deepEqual(await gaps(netns), [OUT4, OUT6]);
  });
});

test('ingress mode is a gap of inbound plaintext only, which the text allows for', privileged, async () => {
  await inPod(async (netns) => {
    await redirection.apply(netns.handle, { ...CNI_RULES, isIngressMode: true });
    assert.deepEqual(await gaps(netns), [IN4, IN6]);
  });
});

test('a missing rule or route for answers is a gap of its own', privileged, async () => {
  await inPod(async (netns) => {
    await redirection.apply(netns.handle, CNI_RULES);
    await netns.exec(['ip', 'rule', 'del', 'pref', '32764']);
    assert.deepEqual(await gaps(netns), ['return: the IPv4 rule for mark 0x111']);
  });
});

test('IPv6 counts only for a pod that has an IPv6 address others can reach', privileged, async () => {
  await inPod(async (netns) => {
    await redirection.apply(netns.handle, { ...CNI_RULES, ipv6: false });
    assert.deepEqual(await gaps(netns), [OUT6, IN6]);
    await netns.exec(['ip', '-6', 'addr', 'flush', 'dev', 'eth0', 'scope', 'global']);
    assert.deepEqual(await gaps(netns), []);
  });
});

for (const variant of ['nft', 'legacy'] as const) {
  test(`rules that iptables-${variant} wrote, as istio-cni does, leave no gap`, privileged, async () => {
    await inPod(async (netns) => {
      await netns.exec([`iptables-${variant}-restore`, '--noflush'], iptablesRules('127.0.0.1/32'));
      await addRoutes(netns);
      assert.deepEqual(await gaps(netns), [OUT6, IN6]);
      await netns.exec([`ip6tables-${variant}-restore`, '--noflush'], iptablesRules('::1/128'));
      assert.deepEqual(await gaps(netns), []);
      assert.equal((await check.look(netns.handle)).isWatched, variant === 'nft');
      await netns.exec([`iptables-${variant}`, '-t', 'nat', '-D', 'OUTPUT', '-j', 'ISTIO_OUTPUT']);
      assert.deepEqual(await gaps(netns), [OUT4]);
    });
  });
}

test('what changes nftables or the routes changes the fingerprint; legacy iptables does not', privileged, async () => {
  await using netns = await TestNetns.create();
  const prints = new Set([check.fingerprint(netns.handle)]);
  await redirection.apply(netns.handle, CNI_RULES);
  prints.add(check.fingerprint(netns.handle));
  await netns.exec(['ip', 'rule', 'del', 'pref', '32764']);
  prints.add(check.fingerprint(netns.handle));
  assert.equal(prints.size, 3);
});

test('a namespace that is gone is one of which nothing can be told', privileged, async () => {
  const netns = await TestNetns.create();
  const { handle } = netns;
  await netns[Symbol.asyncDispose]();
  const look = await check.look(handle);
  assert.deepEqual(look.gaps, []);
  assert.match(look.unknown ?? '', /setns/);
});
