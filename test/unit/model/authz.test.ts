import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ipBytes, parseCidr } from '../../../src/base/ip.ts';
import { type AuthzDecision, authorize, policyRefusal } from '../../../src/model/authz.ts';
import type { Match, Policy, RejectedPolicy, Rule, StringMatch } from '../../../src/model/policy.ts';
import type { PolicyConnection } from '../../../src/model/policy-compile.ts';
import { mesh, policy, workload } from './sample-mesh.ts';

const SERVER = workload('server', { ips: ['10.0.0.2'] });
const IDENTIFIED: PolicyConnection = {
  source: { ip: '10.0.0.1', port: 40_000 },
  sourceIdentity: 'spiffe://td/ns/shop/sa/client',
  destination: { ip: '10.0.0.2', port: 8_080 },
};
const PLAINTEXT: PolicyConnection = { source: IDENTIFIED.source, destination: IDENTIFIED.destination };

const exact = (value: string): StringMatch => ({ kind: 'exact', value });
const prefix = (value: string): StringMatch => ({ kind: 'prefix', value });
const suffix = (value: string): StringMatch => ({ kind: 'suffix', value });
const PRESENT: StringMatch = { kind: 'presence' };

function cidr(text: string): NonNullable<ReturnType<typeof parseCidr>> {
  const parsed = parseCidr(text);
  assert(parsed !== undefined, text);
  return parsed;
}

function decide(
  policies: readonly Policy[],
  connection: PolicyConnection = IDENTIFIED,
  rejectedPolicies: readonly RejectedPolicy[] = [],
): AuthzDecision {
  return authorize(mesh({ policies, rejectedPolicies }).policiesFor(SERVER), connection);
}

/** Whether `match`, alone in an ALLOW policy, lets the connection in. */
function matches(match: Match, connection: PolicyConnection): boolean {
  return decide([policy('p', { rules: [[[match]]] })], connection).isAllowed;
}

const ANYONE: Rule = [];
const NOBODY: Rule = [[{}]];

const decisions: readonly {
  readonly name: string;
  readonly policies: readonly Policy[];
  readonly rejected?: readonly RejectedPolicy[];
  readonly want: string;
}[] = [
  { name: 'without any policy everything is allowed', policies: [], want: 'allowed' },
  {
    name: 'a DENY that matches refuses and is named',
    policies: [policy('no', { action: 'Deny', rules: [ANYONE] })],
    want: 'CV-POLICY-DENY explicitly denied by: default/no',
  },
  {
    name: 'a DENY that does not match allows when there is no ALLOW',
    policies: [policy('no', { action: 'Deny', rules: [NOBODY] })],
    want: 'allowed',
  },
  { name: 'an ALLOW that matches allows', policies: [policy('yes', { rules: [ANYONE] })], want: 'allowed' },
  {
    name: 'an ALLOW that does not match refuses',
    policies: [policy('yes', { rules: [NOBODY] })],
    want: 'CV-POLICY-NOT-ALLOWED allow policies exist, but none allowed',
  },
  {
    name: 'one ALLOW of several is enough',
    policies: [policy('a', { rules: [NOBODY] }), policy('b', { rules: [ANYONE] })],
    want: 'allowed',
  },
  {
    name: 'DENY beats ALLOW',
    policies: [policy('a-yes', { rules: [ANYONE] }), policy('no', { action: 'Deny', rules: [ANYONE] })],
    want: 'CV-POLICY-DENY explicitly denied by: default/no',
  },
  {
    name: 'an ALLOW without rules allows nobody',
    policies: [policy('nothing', { rules: [] })],
    want: 'CV-POLICY-NOT-ALLOWED allow policies exist, but none allowed',
  },
  { name: 'a DENY without rules denies nobody', policies: [policy('no', { action: 'Deny' })], want: 'allowed' },
  { name: 'a rule with an empty clause matches', policies: [policy('yes', { rules: [[[]]] })], want: 'allowed' },
  {
    name: 'clauses of a rule are all required',
    policies: [policy('yes', { rules: [[[{ destinationPorts: [8_080] }], [{ destinationPorts: [1] }]]] })],
    want: 'CV-POLICY-NOT-ALLOWED allow policies exist, but none allowed',
  },
  {
    name: 'one match of a clause is enough',
    policies: [policy('yes', { rules: [[[{ destinationPorts: [1] }, { destinationPorts: [8_080] }]]] })],
    want: 'allowed',
  },
  {
    name: 'one rule of several is enough',
    policies: [policy('yes', { rules: [NOBODY, [[{ destinationPorts: [8_080] }]]] })],
    want: 'allowed',
  },
  {
    name: 'fields of a match are all required',
    policies: [policy('yes', { rules: [[[{ destinationPorts: [8_080], namespaces: [exact('other')] }]]] })],
    want: 'CV-POLICY-NOT-ALLOWED allow policies exist, but none allowed',
  },
  {
    name: 'a dry-run DENY refuses nobody',
    policies: [policy('no', { action: 'Deny', dryRun: true, rules: [ANYONE] })],
    want: 'allowed',
  },
  {
    name: 'a dry-run ALLOW does not make refusal the default',
    policies: [policy('yes', { dryRun: true, rules: [NOBODY] })],
    want: 'allowed',
  },
  {
    name: 'a dry-run ALLOW allows nobody',
    policies: [policy('a', { rules: [NOBODY] }), policy('b', { dryRun: true, rules: [ANYONE] })],
    want: 'CV-POLICY-NOT-ALLOWED allow policies exist, but none allowed',
  },
  {
    name: 'a policy of another namespace does not decide',
    policies: [policy('no', { namespace: 'other', action: 'Deny', rules: [ANYONE] })],
    want: 'allowed',
  },
  {
    name: 'a global policy decides in every namespace',
    policies: [policy('no', { namespace: 'istio-system', scope: 'Global', action: 'Deny', rules: [ANYONE] })],
    want: 'CV-POLICY-DENY explicitly denied by: istio-system/no',
  },
  {
    name: 'a selector policy the workload does not name does not decide',
    policies: [policy('no', { scope: 'WorkloadSelector', action: 'Deny', rules: [ANYONE] })],
    want: 'allowed',
  },
  {
    name: 'a policy nobody understood refuses even what another one allows',
    policies: [policy('yes', { rules: [ANYONE] })],
    rejected: [{ name: 'broken', namespace: 'default', scope: 'Namespace', why: 'bad range' }],
    want: 'CV-POLICY-INVALID policy could not be understood: default/broken',
  },
  {
    name: 'a policy nobody understood does not decide in another namespace',
    policies: [],
    rejected: [{ name: 'broken', namespace: 'other', scope: 'Namespace', why: 'bad range' }],
    want: 'allowed',
  },
  {
    name: 'a rejected version takes the place of the accepted one before it',
    policies: [policy('broken', { rules: [ANYONE] })],
    rejected: [{ name: 'broken', namespace: 'default', scope: 'WorkloadSelector', why: 'bad range' }],
    want: 'allowed',
  },
];

for (const { name, policies, rejected, want } of decisions) {
  test(name, () => {
    const decision = decide(policies, IDENTIFIED, rejected);
    const refusal = policyRefusal(decision);
    const prefixText = 'connection closed due to policy rejection: ';
    const text = refusal && `${refusal.code} ${refusal.text.replace(prefixText, '')}`;
    assert.equal(text ?? 'allowed', want);
    if (refusal !== undefined) assert(refusal.text.startsWith(prefixText));
  });
}

const fields: readonly [claim: string, match: Match, identified: boolean, plaintext: boolean][] = [
  ['namespaces compare with the namespace of the identity', { namespaces: [exact('shop')] }, true, false],
  ['another namespace does not match', { namespaces: [exact('bank')] }, false, false],
  ['any listed namespace is enough', { namespaces: [exact('bank'), prefix('sh')] }, true, false],
  ['notNamespaces excludes the listed one', { notNamespaces: [exact('shop')] }, false, true],
  ['notNamespaces lets the others in, plaintext included', { notNamespaces: [exact('bank')] }, true, true],
  ['principals compare without the scheme', { principals: [exact('td/ns/shop/sa/client')] }, true, false],
  ['principals with the scheme never match', { principals: [exact('spiffe://td/ns/shop/sa/client')] }, false, false],
  ['a principal prefix matches', { principals: [prefix('td/ns/shop/')] }, true, false],
  ['a principal suffix matches', { principals: [suffix('/sa/client')] }, true, false],
  ['an empty prefix needs an identity all the same', { principals: [prefix('')] }, true, false],
  ['presence of a principal means any identity', { principals: [PRESENT] }, true, false],
  ['notPrincipals presence means plaintext only', { notPrincipals: [PRESENT] }, false, true],
  ['notPrincipals of another one holds for both', { notPrincipals: [exact('td/ns/bank/sa/x')] }, true, true],
  [
    'service accounts ignore the trust domain',
    { serviceAccounts: [{ namespace: 'shop', serviceAccount: 'client' }] },
    true,
    false,
  ],
  [
    'a service account of another namespace does not match',
    { serviceAccounts: [{ namespace: 'bank', serviceAccount: 'client' }] },
    false,
    false,
  ],
  [
    'notServiceAccounts excludes the account and lets plaintext in',
    { notServiceAccounts: [{ namespace: 'shop', serviceAccount: 'client' }] },
    false,
    true,
  ],
  ['a source range matches the TCP peer', { sourceIps: [cidr('10.0.0.0/24')] }, true, true],
  ['another source range does not match', { sourceIps: [cidr('10.9.0.0/24')] }, false, false],
  ['one address is a range of full length', { sourceIps: [cidr('10.0.0.1')] }, true, true],
  ['the whole of IPv4 matches', { sourceIps: [cidr('0.0.0.0/0')] }, true, true],
  ['an IPv6 range never matches an IPv4 peer', { sourceIps: [cidr('::/0')] }, false, false],
  ['notSourceIps excludes the range', { notSourceIps: [cidr('10.0.0.0/24')] }, false, false],
  ['a destination range matches the pod address', { destinationIps: [cidr('10.0.0.2/32')] }, true, true],
  ['notDestinationIps excludes the pod address', { notDestinationIps: [cidr('10.0.0.2')] }, false, false],
  ['a destination port is the target port', { destinationPorts: [80, 8_080] }, true, true],
  ['another destination port does not match', { destinationPorts: [80] }, false, false],
  ['notDestinationPorts excludes the port', { notDestinationPorts: [8_080] }, false, false],
  ['notDestinationPorts lets other ports in', { notDestinationPorts: [80] }, true, true],
  ['a match without fields matches nothing', {}, false, false],
];

for (const [claim, match, identified, plaintext] of fields) {
  test(claim, () => {
    assert.equal(matches(match, IDENTIFIED), identified, 'with identity');
    assert.equal(matches(match, PLAINTEXT), plaintext, 'plaintext');
  });
}

const strings: readonly [match: StringMatch, text: string, want: boolean][] = [
  [exact('shop'), 'shop', true],
  [exact('shop'), 'shops', false],
  [exact('shop'), '', false],
  [prefix('sh'), 'shop', true],
  [prefix('sh'), 'ash', false],
  [prefix('sh'), '', false],
  [suffix('op'), 'shop', true],
  [suffix('op'), 'ops', false],
  [suffix('op'), '', false],
  [PRESENT, 'shop', true],
  [PRESENT, '', false],
];

for (const [match, text, want] of strings) {
  test(`${JSON.stringify(match)} ${want ? 'matches' : 'does not match'} ${JSON.stringify(text)}`, () => {
    const connection = { ...PLAINTEXT, ...(text && { sourceIdentity: `spiffe://td/ns/${text}/sa/x` }) };
    assert.equal(matches({ namespaces: [match] }, connection), want);
  });
}

test('STRICT as the control plane converts it lets identities in and keeps plaintext out', () => {
  const strict = policy('istio_converted_static_strict', {
    namespace: 'istio-system',
    scope: 'WorkloadSelector',
    action: 'Deny',
    rules: [[[{ notPrincipals: [PRESENT] }]]],
  });
  const server = { ...SERVER, authorizationPolicies: ['istio-system/istio_converted_static_strict'] };
  const set = mesh({ policies: [strict] }).policiesFor(server);
  assert.equal(authorize(set, IDENTIFIED).isAllowed, true);
  assert.equal(authorize(set, PLAINTEXT).isAllowed, false);
});

test('STRICT on one port leaves plaintext to the others alone', () => {
  const strict = policy('converted_peer_authentication_x', {
    action: 'Deny',
    rules: [[[{ notPrincipals: [PRESENT] }], [{ destinationPorts: [8_080] }]]],
  });
  assert.equal(decide([strict], PLAINTEXT).isAllowed, false);
  assert.equal(decide([strict], { ...PLAINTEXT, destination: { ip: '10.0.0.2', port: 9_090 } }).isAllowed, true);
});

test('an identity of another shape counts as no identity', () => {
  const connection = { ...IDENTIFIED, sourceIdentity: 'spiffe://td/ns/shop/sa/client/extra' };
  assert.equal(matches({ principals: [PRESENT] }, connection), false);
  assert.equal(matches({ notPrincipals: [PRESENT] }, connection), true);
});

test('the rule that matched is told', () => {
  const decision = decide([policy('yes', { rules: [NOBODY, NOBODY, ANYONE, ANYONE] })]);
  assert(decision.isAllowed);
  assert.deepEqual(decision.match, { policy: 'default/yes', rule: 2 });
});

test('what dry-run policies would have done is told, and only that', () => {
  const decision = decide([
    policy('b-deny', { action: 'Deny', dryRun: true, rules: [NOBODY, ANYONE] }),
    policy('a-allow', { dryRun: true, rules: [ANYONE] }),
    policy('silent', { dryRun: true, rules: [NOBODY] }),
  ]);
  assert.deepEqual(decision, {
    isAllowed: true,
    isDryRunUnmatched: false,
    dryRun: [
      { policy: 'default/a-allow', rule: 0, action: 'Allow' },
      { policy: 'default/b-deny', rule: 1, action: 'Deny' },
    ],
  });
});

for (const { claim, policies, want } of [
  {
    claim: 'a lone dry-run ALLOW that does not match',
    policies: [policy('a', { dryRun: true, rules: [NOBODY] })],
    want: true,
  },
  { claim: 'one that matches', policies: [policy('a', { dryRun: true, rules: [ANYONE] })], want: false },
  { claim: 'a dry-run DENY', policies: [policy('a', { action: 'Deny', dryRun: true, rules: [NOBODY] })], want: false },
  {
    claim: 'one beside an enforced ALLOW',
    policies: [policy('a', { dryRun: true, rules: [NOBODY] }), policy('b', { rules: [ANYONE] })],
    want: false,
  },
]) {
  test(`${claim} would ${want ? '' : 'not '}refuse for lack of an ALLOW that matches`, () => {
    assert.equal(decide(policies).isDryRunUnmatched, want);
  });
}

test('a key nobody sent is listed and decides nothing', () => {
  const server = { ...SERVER, authorizationPolicies: ['default/gone'] };
  const set = mesh({}).policiesFor(server);
  assert.deepEqual(set.missing, ['default/gone']);
  assert.equal(authorize(set, PLAINTEXT).isAllowed, true);
});

// Properties over small alphabets, so that rules and connections often meet.

const namespaces = fc.constantFrom('a', 'b', 'ab');
const ports = fc.constantFrom(80, 443, 8_080);
const ranges = fc.constantFrom('10.0.0.0/8', '10.0.0.1/32', '10.1.0.0/16', '0.0.0.0/0', '::/0', 'fd00::/8').map(cidr);
const stringMatch: fc.Arbitrary<StringMatch> = fc.oneof(
  fc.constant(PRESENT),
  fc.record({ kind: fc.constantFrom('exact', 'prefix', 'suffix'), value: fc.constantFrom('', 'a', 'b', 'ab') }),
  fc.record({ kind: fc.constantFrom('exact', 'prefix'), value: fc.constantFrom('td/ns/a/sa/a', 'td/ns/') }),
);
const account = fc.record({ namespace: namespaces, serviceAccount: namespaces });
const some = <T>(values: fc.Arbitrary<T>): fc.Arbitrary<T[]> => fc.array(values, { minLength: 1, maxLength: 2 });

const FIELDS = {
  namespaces: some(stringMatch),
  notNamespaces: some(stringMatch),
  principals: some(stringMatch),
  notPrincipals: some(stringMatch),
  serviceAccounts: some(account),
  notServiceAccounts: some(account),
  sourceIps: some(ranges),
  notSourceIps: some(ranges),
  destinationIps: some(ranges),
  notDestinationIps: some(ranges),
  destinationPorts: some(ports),
  notDestinationPorts: some(ports),
} satisfies { readonly [K in keyof Match]-?: fc.Arbitrary<Match[K]> };
const anyMatch: fc.Arbitrary<Match> = fc.record(FIELDS, { requiredKeys: [] });
/** Of few fields: one of many hardly ever matches. */
const smallMatch: fc.Arbitrary<Match> = fc
  .subarray(Object.keys(FIELDS) as (keyof Match)[], { maxLength: 2 })
  .chain((keys) => fc.record(FIELDS).map((all) => Object.fromEntries(keys.map((key) => [key, all[key]]))));
const anyRules = fc.array(fc.array(fc.array(fc.oneof(anyMatch, smallMatch), { maxLength: 2 }), { maxLength: 2 }), {
  maxLength: 3,
});
const anyPolicies: fc.Arbitrary<Policy[]> = fc
  .array(
    fc.record({
      scope: fc.constantFrom('Global', 'Namespace'),
      action: fc.constantFrom('Allow', 'Deny'),
      dryRun: fc.boolean(),
      rules: anyRules,
    }),
    { maxLength: 5 },
  )
  .map((list) => list.map((entry, i) => policy(`p${i}`, entry)));
const hostPort = fc.record({ ip: fc.constantFrom('10.0.0.1', '10.1.2.3', '192.0.2.1', 'fd00::1'), port: ports });
const anyConnection: fc.Arbitrary<PolicyConnection> = fc.record(
  {
    source: hostPort,
    destination: hostPort,
    sourceIdentity: fc.tuple(namespaces, namespaces).map(([ns, sa]) => `spiffe://td/ns/${ns}/sa/${sa}`),
  },
  { requiredKeys: ['source', 'destination'] },
);

test('the order of policies never matters, not even to what is reported', () => {
  fc.assert(
    fc.property(
      anyPolicies.chain((list) => fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length }))),
      anyConnection,
      ([list, shuffled], connection) => {
        assert.deepEqual(decide(shuffled, connection), decide(list, connection));
      },
    ),
  );
});

test('one more DENY never allows what was refused', () => {
  fc.assert(
    fc.property(anyPolicies, anyRules, anyConnection, (list, rules, connection) => {
      const before = decide(list, connection).isAllowed;
      const after = decide([...list, policy('extra', { action: 'Deny', rules })], connection).isAllowed;
      assert(before || !after);
    }),
  );
});

test('one more rejected policy refuses everything', () => {
  fc.assert(
    fc.property(anyPolicies, anyConnection, (list, connection) => {
      const rejected = [{ name: 'broken', namespace: 'default', scope: 'Namespace', why: '' } as const];
      assert.equal(decide(list, connection, rejected).isAllowed, false);
    }),
  );
});

test('one more ALLOW next to another ALLOW never refuses what was allowed', () => {
  fc.assert(
    fc.property(anyPolicies, anyRules, anyConnection, (list, rules, connection) => {
      const base = [...list, policy('base', { rules: [ANYONE] })];
      const before = decide(base, connection).isAllowed;
      const after = decide([...base, policy('extra', { rules })], connection).isAllowed;
      assert(!before || after);
    }),
  );
});

test('dry-run policies never change a decision', () => {
  fc.assert(
    fc.property(anyPolicies, anyConnection, (list, connection) => {
      const enforced = list.filter(({ dryRun }) => !dryRun);
      const { dryRun: _all, isDryRunUnmatched: _would, ...withDryRun } = decide(list, connection);
      const { dryRun: _none, isDryRunUnmatched: _never, ...without } = decide(enforced, connection);
      assert.deepEqual(withDryRun, without);
    }),
  );
});

const PAIRS = [
  ['namespaces', 'notNamespaces'],
  ['principals', 'notPrincipals'],
  ['serviceAccounts', 'notServiceAccounts'],
  ['sourceIps', 'notSourceIps'],
  ['destinationIps', 'notDestinationIps'],
  ['destinationPorts', 'notDestinationPorts'],
] as const;

test('each negative field matches exactly when its positive twin does not', () => {
  fc.assert(
    fc.property(anyMatch, anyConnection, (match, connection) => {
      for (const [positive, negative] of PAIRS) {
        const values = match[positive];
        if (values === undefined) continue;
        const isIn = matches({ [positive]: values }, connection);
        assert.equal(matches({ [negative]: values }, connection), !isIn, positive);
      }
    }),
  );
});

/** What a policy language says of itself, word for word: no table, nothing made beforehand. */
function plainDecision(list: readonly Policy[], connection: PolicyConnection): string {
  const [trustDomain, , ns = '', , sa = ''] = connection.sourceIdentity?.slice('spiffe://'.length).split('/') ?? [];
  const principal = trustDomain === undefined ? undefined : `${trustDomain}/ns/${ns}/sa/${sa}`;
  const isText = (match: StringMatch, text: string): boolean => {
    if (match.kind === 'presence') return text.length > 0;
    const { value } = match;
    if (match.kind === 'prefix') return text.slice(0, value.length) === value;
    return match.kind === 'exact' ? text === value : text.slice(text.length - value.length) === value;
  };
  const isInside = ({ bytes, length }: ReturnType<typeof cidr>, ip: string): boolean =>
    bitsOf(bytes).length === bitsOf(ipBytes(ip)).length &&
    bitsOf(bytes).slice(0, length) === bitsOf(ipBytes(ip)).slice(0, length);
  const holds = <T>(wanted: readonly T[] = [], unwanted: readonly T[] = [], is: (value: T) => boolean): boolean =>
    (wanted.length === 0 || wanted.some(is)) && !unwanted.some(is);
  const isMatch = (match: Match): boolean =>
    Object.values(match).some((values) => values.length > 0) &&
    holds(match.namespaces, match.notNamespaces, (value) => isText(value, ns)) &&
    holds(match.principals, match.notPrincipals, (value) => principal !== undefined && isText(value, principal)) &&
    holds(match.serviceAccounts, match.notServiceAccounts, (one) => {
      return principal !== undefined && one.namespace === ns && one.serviceAccount === sa;
    }) &&
    holds(match.sourceIps, match.notSourceIps, (value) => isInside(value, connection.source.ip)) &&
    holds(match.destinationIps, match.notDestinationIps, (value) => isInside(value, connection.destination.ip)) &&
    holds(match.destinationPorts, match.notDestinationPorts, (port) => port === connection.destination.port);
  const isHit = ({ rules }: Policy): boolean =>
    rules.some((rule) => rule.every((clause) => clause.length === 0 || clause.some(isMatch)));
  const enforced = list.filter(({ dryRun }) => !dryRun);
  if (enforced.some((one) => one.action === 'Deny' && isHit(one))) return 'CV-POLICY-DENY';
  const allow = enforced.filter(({ action }) => action === 'Allow');
  return allow.length === 0 || allow.some(isHit) ? 'allowed' : 'CV-POLICY-NOT-ALLOWED';
}

function bitsOf(bytes: Uint8Array | undefined): string {
  return Array.from(bytes ?? [], (byte) => byte.toString(2).padStart(8, '0')).join('');
}

test('any policies decide as the policy language says, word for word', () => {
  const oneMatch = smallMatch.map((match) => [policy('p', { rules: [[[match]]] })]);
  fc.assert(
    fc.property(fc.oneof(anyPolicies, oneMatch), anyConnection, (list, connection) => {
      const decision = decide(list, connection);
      assert.equal(decision.isAllowed ? 'allowed' : decision.code, plainDecision(list, connection));
    }),
    { numRuns: 3_000 },
  );
});

test('a decision over ten thousand policies is made, and its time printed', (t) => {
  const many = Array.from({ length: 10_000 }, (_, i) =>
    policy(`p${i}`, { rules: [[[{ principals: [exact(`td/ns/n${i}/sa/x`)], destinationPorts: [8_080] }]]] }),
  );
  const set = mesh({ policies: many }).policiesFor(SERVER);
  authorize(set, IDENTIFIED);
  const started = performance.now();
  for (let i = 0; i < 20; i++) assert.equal(authorize(set, IDENTIFIED).isAllowed, false);
  t.diagnostic(`${((performance.now() - started) / 20).toFixed(1)} ms a decision`);
});
