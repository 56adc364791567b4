import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodePolicy } from '../../../src/xds/decode-policy.ts';

const GOOD = { name: 'p', namespace: 'ns', scope: 'Namespace', action: 'Allow', dryRun: false, rules: [[[{}]]] };

test('a good policy decodes', () => {
  const decoded = decodePolicy(GOOD);
  assert(decoded.kind === 'policy');
  assert.deepEqual(decoded.policy, GOOD);
});

for (const [claim, change] of [
  ['a rule with a range of 33 bits', { rules: [[[{ sourceIps: ['10.0.0.0/33'] }]]] }],
  [
    'one bad value among good ones',
    { rules: [[[{ destinationPorts: [80, 70_000] }]], [[{ destinationPorts: [80] }]]] },
  ],
  ['a field from the future', { rules: [[[{ destinationPorts: [80], jwtClaims: ['x'] }]]] }],
  ['a string match from the future', { rules: [[[{ principals: [{ Regex: '.*' }] }]]] }],
  ['an action from the future', { action: 'Custom' }],
  ['a field of the policy from the future', { provider: 'x' }],
] as const) {
  test(`${claim} rejects the whole policy, which is still known by name`, () => {
    const decoded = decodePolicy({ ...GOOD, ...change });
    assert(decoded.kind === 'rejected');
    const { why, ...named } = decoded.rejected;
    assert.deepEqual(named, { name: 'p', namespace: 'ns', scope: 'Namespace' });
    assert.notEqual(why, '');
  });
}

for (const [claim, value] of [
  ['text', 'p'],
  ['a policy without name', { ...GOOD, name: undefined }],
  ['a policy whose name is a path', { ...GOOD, name: 'a/b' }],
  ['a policy with a scope from the future', { ...GOOD, scope: 'Planet' }],
] as const) {
  test(`${claim} is unusable`, () => assert.equal(decodePolicy(value).kind, 'unusable'));
}
