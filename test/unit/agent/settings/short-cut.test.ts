import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authoritySettings } from '../../../../src/agent/proxy-settings.ts';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';

const minimal = { NODE_NAME: 'n1', LOCAL_XDS_PATH: 'mesh.yaml', CULVERT_PODS: 'pods.yaml' };

function isOn(value: string | undefined): boolean | undefined {
  const result = resolveConfig({ ...minimal, CULVERT_SAME_NODE_SHORT_CUT: value }, {});
  assert(result.ok, JSON.stringify(result));
  return authoritySettings(result.config).isShortCutAccepted;
}

test('the short cut is off unless the operator says what is given up', () => {
  assert.deepEqual([undefined, 'off', 'accept-no-network-policy'].map(isOn), [false, false, true]);
});

for (const value of ['true', 'on', 'accept', '']) {
  test(`"${value}" is no word for it: refused with what is given up and how to say so`, () => {
    const result = resolveConfig({ ...minimal, CULVERT_SAME_NODE_SHORT_CUT: value }, {});
    assert(!result.ok);
    const [issue] = result.issues;
    assert.equal(issue?.setting, 'CULVERT_SAME_NODE_SHORT_CUT');
    assert.match(issue.problem, /NetworkPolicy.*not encrypted.*say accept-no-network-policy$/);
  });
}
