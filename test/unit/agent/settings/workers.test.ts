import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ConfigResult, resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment, Machine, Start } from '../../../../src/agent/settings/input.ts';

const minimal = { NODE_NAME: 'n1', LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

interface Row {
  readonly env?: Environment;
  readonly flag?: string;
  readonly cores: number;
  readonly cpuLimit?: number;
  readonly defaults?: Start['defaults'];
}

function resolve({ env = {}, flag, defaults = 'culvert', cores, cpuLimit }: Row, memoryMib = 16_384): ConfigResult {
  const machine: Machine = { cores, cpuLimit, memoryMib };
  const start: Start = { defaults, args: ['agent'], readText: () => undefined, machine };
  return resolveConfig({ ...minimal, ...env }, flag === undefined ? {} : { workers: flag }, start);
}

/** ztunnel's `test_parse_worker_threads`, and what is ours. */
const table: readonly [claim: string, row: Row, want: number][] = [
  ['a quarter of the cores, rounded up', { cores: 10 }, 3],
  ['at least one', { cores: 2 }, 1],
  ['as ztunnel: at least two', { cores: 2, defaults: 'ztunnel' }, 2],
  ['a number', { env: { ZTUNNEL_WORKER_THREADS: '4' }, cores: 2 }, 4],
  ['50 % of 8', { env: { ZTUNNEL_WORKER_THREADS: '50%' }, cores: 8 }, 4],
  ['30 % of 16', { env: { ZTUNNEL_WORKER_THREADS: '30%' }, cores: 16 }, 5],
  ['10 % of 4', { env: { ZTUNNEL_WORKER_THREADS: '10%' }, cores: 4 }, 1],
  ['the variable: 0 is all CPUs', { env: { ZTUNNEL_WORKER_THREADS: '0' }, cores: 6 }, 6],
  ['the flag: 0 is no worker', { flag: '0', cores: 6 }, 0],
  ['the flag wins', { flag: '3', env: { ZTUNNEL_WORKER_THREADS: '4' }, cores: 6 }, 3],
  ['the flag takes a share', { flag: '50%', cores: 6 }, 3],
  ['the flag says auto', { flag: 'auto', env: { ZTUNNEL_WORKER_THREADS: '4' }, cores: 4 }, 1],
  ['a limit of the pod is used whole', { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '16' }, cores: 64 }, 16],
  ['500m', { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '500m' }, cores: 64 }, 1],
  ['2500m', { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '2500m' }, cores: 64 }, 3],
  ['1.5', { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '1.5' }, cores: 64 }, 2],
  ['a node limit counts as its cores', { env: { ZTUNNEL_CPU_LIMIT: '32' }, cores: 64 }, 8],
  [
    'the limit of the pod beats that of the node',
    { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '4', ZTUNNEL_CPU_LIMIT: '32' }, cores: 64 },
    4,
  ],
  [
    'a share is one of the limit',
    { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '8', ZTUNNEL_WORKER_THREADS: '50%' }, cores: 64 },
    4,
  ],
  ['a request raises the floor', { env: { ZTUNNEL_RESOURCE_CPU_REQUEST: '8' }, cores: 4 }, 8],
  ['a lower request does nothing', { env: { ZTUNNEL_RESOURCE_CPU_REQUEST: '1' }, cores: 32 }, 8],
  [
    'a request over the limit wins',
    { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '2', ZTUNNEL_RESOURCE_CPU_REQUEST: '3' }, cores: 64 },
    3,
  ],
  ['auto stays within the cgroup', { cores: 64, cpuLimit: 2.5 }, 2],
  ['auto is one even in half a CPU', { cores: 64, cpuLimit: 0.5 }, 1],
  ['a number is not bound by the cgroup', { flag: '4', cores: 64, cpuLimit: 1 }, 4],
  ['ProxyConfig concurrency', { env: { PROXY_CONFIG: 'concurrency: 3' }, cores: 8 }, 3],
  ['ProxyConfig concurrency 0 is all CPUs', { env: { PROXY_CONFIG: 'concurrency: 0' }, cores: 8 }, 8],
  [
    'the variable beats ProxyConfig',
    { env: { PROXY_CONFIG: 'concurrency: 3', ZTUNNEL_WORKER_THREADS: '2' }, cores: 8 },
    2,
  ],
  ['without shared ports there is one', { env: { INPOD_PORT_REUSE: 'false' }, cores: 64 }, 1],
];

for (const [claim, row, want] of table) {
  test(`workers: ${claim}`, () => {
    const result = resolve(row);
    assert.equal(result.ok ? result.config.workers : assert.fail(JSON.stringify(result.issues)), want);
  });
}

const refused: readonly [setting: string, row: Row][] = [
  ['--workers', { flag: '-1', cores: 8 }],
  ['--workers', { flag: '1.5', cores: 8 }],
  ['--workers', { flag: '101%', cores: 8 }],
  ['--workers', { flag: '0%', cores: 8 }],
  ['--workers', { flag: '5000', cores: 8 }],
  ['--workers', { flag: '2', env: { INPOD_PORT_REUSE: 'false' }, cores: 8 }],
  ['ZTUNNEL_WORKER_THREADS', { env: { ZTUNNEL_WORKER_THREADS: 'many' }, cores: 8 }],
  ['ZTUNNEL_CPU_LIMIT', { env: { ZTUNNEL_CPU_LIMIT: '0' }, cores: 8 }],
  ['ZTUNNEL_RESOURCE_CPU_LIMIT', { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '0' }, cores: 8 }],
  ['ZTUNNEL_RESOURCE_CPU_LIMIT', { env: { ZTUNNEL_RESOURCE_CPU_LIMIT: '2Gi' }, cores: 8 }],
  ['ZTUNNEL_RESOURCE_CPU_REQUEST', { env: { ZTUNNEL_RESOURCE_CPU_REQUEST: '-1' }, cores: 8 }],
  ['CULVERT_WORKER_HEAP_MIB', { env: { CULVERT_WORKER_HEAP_MIB: '8' }, cores: 8 }],
];

for (const [setting, row] of refused) {
  test(`${JSON.stringify({ ...row.env, flag: row.flag })} is refused by the name ${setting}`, () => {
    const result = resolve(row);
    assert.deepEqual(result.ok ? [] : result.issues.map((issue) => issue.setting), [setting]);
  });
}

test('the heaps of all workers leave a quarter of the memory to everything else', () => {
  for (const [workers, memoryMib, wantMib] of [
    ['1', 1_024, 614],
    ['4', 1_024, 153],
    ['8', 128, 32],
    ['1', 65_536, 4_096],
  ] as const) {
    const result = resolve({ flag: workers, cores: 8 }, memoryMib);
    assert.equal(result.ok && result.config.workerHeapMib, wantMib);
  }
});
