import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment } from '../../../../src/agent/settings/input.ts';

const minimal = {
  NODE_NAME: 'n1',
  LOCAL_XDS_PATH: 'mesh.yaml',
  CULVERT_PODS: 'pods.yaml',
  CULVERT_WORKER_HEAP_MIB: '400',
};
const STANDARD = { greedyShare: 0.25, modestForMs: 30_000, heapMib: 100 };

const good: readonly {
  readonly claim: string;
  readonly env: Environment;
  readonly flags?: Environment;
  readonly want: unknown;
}[] = [
  { claim: 'greedy pods get threads of their own', env: {}, want: STANDARD },
  { claim: 'off is off', env: { CULVERT_GREEDY_LANE: 'off' }, want: undefined },
  { claim: 'what is greedy can be said', env: { CULVERT_GREEDY_LANE: '60%' }, want: { ...STANDARD, greedyShare: 0.6 } },
  {
    claim: 'and for how long a pod has to be modest',
    env: { CULVERT_GREEDY_LANE_STAY: '2m' },
    want: { ...STANDARD, modestForMs: 120_000 },
  },
  {
    claim: 'a lane has 32 MiB of heap at least',
    env: { CULVERT_WORKER_HEAP_MIB: '64' },
    want: { ...STANDARD, heapMib: 32 },
  },
  {
    claim: 'same-node short cuts go with them',
    env: { CULVERT_SAME_NODE_SHORT_CUT: 'accept-no-network-policy' },
    want: STANDARD,
  },
  { claim: 'without threads there are no lanes', env: {}, flags: { workers: '0' }, want: undefined },
  { claim: 'without turns nobody is greedy', env: { CULVERT_FAIR_TURNS: 'false' }, want: undefined },
  { claim: 'without shared ports there are no lanes', env: { INPOD_PORT_REUSE: 'false' }, want: undefined },
  {
    claim: 'off is right wherever there are none',
    env: { CULVERT_GREEDY_LANE: 'off' },
    flags: { workers: '0' },
    want: undefined,
  },
];

for (const { claim, env, flags = {}, want } of good) {
  test(claim, () => {
    const result = resolveConfig({ ...minimal, ...env }, flags);
    assert(result.ok, JSON.stringify(result));
    assert.deepEqual(result.config.greedyLane, want);
  });
}

const bad: readonly { readonly env: Environment; readonly flags?: Environment; readonly problem: RegExp }[] = [
  ...['', 'on', 'true', '25', '0%', '101%', '2.5%', '-1%'].map((value) => ({
    env: { CULVERT_GREEDY_LANE: value },
    problem: /^must be off, or the share of a core .* from 1% to 100%$/,
  })),
  { env: { CULVERT_GREEDY_LANE: '25%' }, flags: { workers: '0' }, problem: /no data-plane threads/ },
  { env: { CULVERT_GREEDY_LANE: '25%', CULVERT_FAIR_TURNS: 'false' }, problem: /CULVERT_FAIR_TURNS is false/ },
  { env: { CULVERT_GREEDY_LANE: '25%', INPOD_PORT_REUSE: 'false' }, problem: /INPOD_PORT_REUSE is false/ },
];

for (const { env, flags = {}, problem } of bad) {
  test(`${JSON.stringify({ ...env, ...flags })} is refused, and says why`, () => {
    const result = resolveConfig({ ...minimal, ...env }, flags);
    assert(!result.ok);
    assert.deepEqual(
      result.issues.map(({ setting }) => setting),
      ['CULVERT_GREEDY_LANE'],
    );
    assert.match(result.issues[0]?.problem ?? '', problem);
  });
}

for (const value of ['0s', 'soon', '2h']) {
  test(`a stay of ${value} is refused`, () => {
    const result = resolveConfig({ ...minimal, CULVERT_GREEDY_LANE_STAY: value }, {});
    assert(!result.ok && result.issues[0]?.setting === 'CULVERT_GREEDY_LANE_STAY');
  });
}
