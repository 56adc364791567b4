import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { checkCapabilities, selfCheck } from '../../../src/sys/self-check.ts';
import type { Sys } from '../../../src/sys/sys.ts';

function missing(status: string): string[] {
  return checkCapabilities(status)
    .filter(({ ok }) => !ok)
    .map(({ name }) => name);
}

test('each capability that is not effective is named', () => {
  assert.deepEqual(missing('CapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n'), []);
  assert.deepEqual(missing('CapPrm:\t000001ffffffffff\nCapEff:\t0000000000003000\n'), ['CAP_SYS_ADMIN']);
  assert.deepEqual(missing('CapEff:\t0000000000200000\n'), ['CAP_NET_ADMIN', 'CAP_NET_RAW']);
  assert.deepEqual(missing('nothing of the kind'), ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN']);
});

/** The real thing, but with one call broken. */
function broken(part: Partial<Sys>): Sys {
  return { ...linuxSys, ...part };
}

test('a missing tool is named with its package, and everything else is still checked', async () => {
  const findings = await selfCheck(
    broken({
      runInNetns: (netns, argv) => linuxSys.runInNetns(netns, argv.includes('--version') ? ['/no/such/nft'] : ['true']),
    }),
  );

  const nft = findings.find(({ name }) => name === 'nft');
  assert.equal(nft?.ok, false);
  assert.match(nft?.cure ?? '', /nftables/);
  assert.match(nft?.detail ?? '', /ENOENT/);
  assert.equal(findings.at(-1)?.name, 'IP_TRANSPARENT');
});

test('a kernel that does not list connections is told at the start, not by pods that are never captured', async () => {
  const tcpSockets = (): never => {
    throw new MeshError('CV-SYS', 'netlink request failed with ENOENT');
  };
  const findings = await selfCheck(broken({ tcpSockets }), 'CapEff:\t000001ffffffffff\n');
  assert.deepEqual(
    findings.filter(({ ok }) => !ok).map(({ name, cure }) => [name, cure]),
    [['sock_diag', 'the kernel needs sock_diag for TCP (modules inet_diag and tcp_diag)']],
  );
});

test('what could only fail for want of something else that is missing is not told beside it', async () => {
  const names = async (sys: Sys, effective: string): Promise<readonly string[]> =>
    (await selfCheck(sys, `CapEff:\t${effective}\n`)).filter(({ ok }) => !ok).map(({ name }) => name);
  const noTool = broken({ runInNetns: () => Promise.reject(new MeshError('CV-SYS', 'spawn nft ENOENT')) });

  assert.deepEqual(await names(noTool, '000001ffffffffff'), ['nft']);
  assert.deepEqual(await names(noTool, '0000000000000000'), ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN', 'nft']);
});

test('a refused kernel call is a finding with what the kernel said, not an exception', async () => {
  const refuse = (): never => {
    throw new MeshError('CV-NETNS', 'setns failed with EPERM');
  };
  const findings = await selfCheck(broken({ scratchNetns: refuse }), 'CapEff:\t000001ffffffffff\n');

  const setns = findings.find(({ name }) => name === 'setns');
  assert.deepEqual([setns?.ok, setns?.detail], [false, 'setns failed with EPERM']);
});
