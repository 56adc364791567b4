import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policy } from '../../../src/xds/decode-policy.ts';
import { Issues, Place } from '../../../src/xds/decode-value.ts';

const GOOD = { name: 'p', namespace: 'ns', scope: 'Namespace', action: 'Allow', dryRun: false, rules: [[[{}]]] };

/** How many mistakes were found, and where the first of them is. */
function mistakes(value: unknown): readonly [count: number, path: string] {
  const issues = new Issues();
  policy(value, new Place(issues));
  return [issues.count, issues.list[0]?.path.join('.') ?? ''];
}

test('a good policy decodes', () => {
  const issues = new Issues();
  assert.deepEqual(policy(GOOD, new Place(issues)), GOOD);
  assert.equal(issues.count, 0);
});

for (const [claim, change, path] of [
  ['a rule with a range of 33 bits', { rules: [[[{ sourceIps: ['10.0.0.0/33'] }]]] }, 'rules.0.0.0.sourceIps.0'],
  [
    'one bad value among good ones',
    { rules: [[[{ destinationPorts: [80, 70_000] }]], [[{ destinationPorts: [80] }]]] },
    'rules.0.0.0.destinationPorts.1',
  ],
  ['a field from the future', { rules: [[[{ destinationPorts: [80], jwtClaims: ['x'] }]]] }, 'rules.0.0.0.jwtClaims'],
  [
    'a string match from the future',
    { rules: [[[{ principals: [{ Regex: '.*' }] }]]] },
    'rules.0.0.0.principals.0.Regex',
  ],
  ['an action from the future', { action: 'Custom' }, 'action'],
  ['a field of the policy from the future', { provider: 'x' }, 'provider'],
  ['no name', { name: undefined }, ''],
  ['a name that is a path', { name: 'a/b' }, 'name'],
  ['a scope from the future', { scope: 'Planet' }, 'scope'],
] as const) {
  test(`${claim} refuses the policy, with the place`, () =>
    assert.deepEqual(mistakes({ ...GOOD, ...change }), [1, path]));
}

test('text is no policy', () => assert.deepEqual(mistakes('p'), [1, '']));
