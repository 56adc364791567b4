import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import type { Environment } from '../../../../src/agent/settings/input.ts';

const MINIMAL = { NODE_NAME: 'n1', LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

/** Format and filter, or who is to blame. */
function logs(env: Environment, flags: Environment = {}): readonly string[] {
  const result = resolveConfig({ ...MINIMAL, ...env }, flags);
  if (!result.ok) return result.issues.map(({ setting }) => setting);
  return [result.config.logFormat, result.config.logFilter];
}

const table: readonly {
  readonly claim: string;
  readonly env?: Environment;
  readonly flags?: Environment;
  readonly want: readonly string[];
}[] = [
  { claim: 'text at info is the default', want: ['text', 'info'] },
  { claim: 'anything but json is text, as ztunnel has it', env: { LOG_FORMAT: 'JSON' }, want: ['text', 'info'] },
  { claim: 'json is json', env: { LOG_FORMAT: 'json' }, want: ['json', 'info'] },
  { claim: 'a format that is none is refused as a flag', flags: { 'log-format': 'JSON' }, want: ['--log-format'] },
  {
    claim: 'a word that ztunnel would take for a target is one in RUST_LOG',
    env: { RUST_LOG: 'hyper' },
    want: ['text', 'hyper'],
  },
  { claim: 'a misspelt level is refused as a flag', flags: { 'log-level': 'wran' }, want: ['--log-level'] },
  { claim: 'so it is among others', flags: { 'log-level': 'access=debug, inof' }, want: ['--log-level'] },
  { claim: 'a part alone is none', flags: { 'log-level': 'dns,hand-over,INFO' }, want: ['text', 'dns,hand-over,INFO'] },
];

for (const { claim, env = {}, flags = {}, want } of table) {
  test(claim, () => assert.deepEqual(logs(env, flags), want));
}
