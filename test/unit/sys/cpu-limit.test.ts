import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cgroupCpuLimit } from '../../../src/sys/cpu-limit.ts';

const POD = '/kubepods/pod1';

const table: readonly [claim: string, files: Readonly<Record<string, string>>, want: number | undefined][] = [
  ['no cgroup is no limit', {}, undefined],
  ['v2: half a CPU', { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '50000 100000\n' }, 0.5],
  ['v2: max is no limit', { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': 'max 100000\n' }, undefined],
  [
    'v2: the tightest on the way to the root holds',
    {
      '/proc/self/cgroup': `0::${POD}/agent\n`,
      [`/sys/fs/cgroup${POD}/agent/cpu.max`]: '400000 100000\n',
      [`/sys/fs/cgroup${POD}/cpu.max`]: '150000 100000\n',
      '/sys/fs/cgroup/kubepods/cpu.max': 'max 100000\n',
    },
    1.5,
  ],
  [
    'v2: a path outside our view leaves the root of our view',
    { '/proc/self/cgroup': '0::/../other\n', '/sys/fs/cgroup/cpu.max': '200000 100000\n' },
    2,
  ],
  [
    'v1: quota over period',
    {
      '/proc/self/cgroup': `5:cpuset:/\n4:cpu,cpuacct:${POD}\n0::/\n`,
      [`/sys/fs/cgroup/cpu,cpuacct${POD}/cpu.cfs_quota_us`]: '250000\n',
      [`/sys/fs/cgroup/cpu,cpuacct${POD}/cpu.cfs_period_us`]: '100000\n',
    },
    2.5,
  ],
  [
    'v1: -1 is no limit',
    {
      '/proc/self/cgroup': '1:cpu:/\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    },
    undefined,
  ],
  ['rubbish is no limit', { '/proc/self/cgroup': 'x\n0::/\n', '/sys/fs/cgroup/cpu.max': 'many\n' }, undefined],
];

for (const [claim, files, want] of table) {
  test(claim, () =>
    assert.equal(
      cgroupCpuLimit((path) => files[path]),
      want,
    ),
  );
}
