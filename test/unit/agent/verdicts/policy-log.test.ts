/** ztunnel's log lines about policies, from real policies on real decisions. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PolicyLog } from '../../../../src/agent/verdicts/policy-log.ts';
import { authorize } from '../../../../src/model/authz.ts';
import type { Policy } from '../../../../src/model/policy.ts';
import { rootLogger } from '../../../../src/telemetry/logger.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { mesh, policy, workload } from '../../model/sample-mesh.ts';

const ANYONE: Policy['rules'] = [[]];
const NOBODY: Policy['rules'] = [];
const connection = { source: { ip: '10.0.0.1', port: 1 }, destination: { ip: '10.0.0.2', port: 80 } };

function logged({ isAtInfo = false, filter = 'debug' } = {}) {
  const lines: string[] = [];
  const sink = { write: (line: string) => void lines.push(line.split('\t').slice(1).join(' ').trim()) };
  const log = rootLogger({ sink, clock: new FakeClock(), format: 'text', filter }).scope('state');
  return { lines, policyLog: new PolicyLog({ log, isAtInfo }) };
}

function linesFor(policies: readonly Policy[], options: { isAtInfo?: boolean; filter?: string } = {}): string[] {
  const { lines, policyLog } = logged(options);
  policyLog.decided(authorize(mesh({ policies }).policiesFor(workload('server')), connection), connection);
  return lines;
}

const ENDS = 'src="10.0.0.1:1" dst="10.0.0.2:80"';

const table: readonly {
  readonly claim: string;
  readonly policies: readonly Policy[];
  readonly want: readonly string[];
}[] = [
  { claim: 'without policies', policies: [], want: ['no allow policies, allow'] },
  {
    claim: 'a DENY that matches, after dry-run DENYs and before any ALLOW',
    policies: [
      policy('a', { action: 'Deny', rules: ANYONE }),
      policy('b', { action: 'Deny', dryRun: true, rules: ANYONE }),
      policy('c', { rules: ANYONE, dryRun: true }),
    ],
    want: ['dry-run: deny policy match policy="default/b"', 'deny policy match policy="default/a"'],
  },
  {
    claim: 'an ALLOW that matches',
    policies: [policy('a', { rules: ANYONE })],
    want: ['allow policy match policy="default/a"'],
  },
  {
    claim: 'ALLOWs that do not match',
    policies: [policy('a', { rules: NOBODY })],
    want: ['no allow policies matched'],
  },
  {
    claim: 'a dry-run ALLOW that matches',
    policies: [policy('a', { dryRun: true, rules: ANYONE })],
    want: ['dry-run: allow policy match policy="default/a"', 'no allow policies, allow'],
  },
  {
    claim: 'a dry-run ALLOW that does not match',
    policies: [policy('a', { dryRun: true, rules: NOBODY })],
    want: ['dry-run: no allow policies match', 'no allow policies, allow'],
  },
];

for (const { claim, policies, want } of table) {
  test(`${claim}: ${want.join(', ')}`, () => {
    assert.deepEqual(
      linesFor(policies),
      want.map((line) => `debug state ${line} ${ENDS}`),
    );
  });
}

test('decisions are debug lines, and info lines when the operator asks for them', () => {
  assert.deepEqual(linesFor([], { filter: 'info' }), []);
  assert.deepEqual(linesFor([], { filter: 'info', isAtInfo: true }), [`info state no allow policies, allow ${ENDS}`]);
});

test('a policy nobody understood refuses and is named', () => {
  const { lines, policyLog } = logged();
  const rejected = { name: 'odd', namespace: 'default', scope: 'Namespace', why: 'x' } as const;
  const decision = authorize(mesh({ rejectedPolicies: [rejected] }).policiesFor(workload('server')), connection);
  policyLog.decided(decision, connection);
  assert.deepEqual(lines, [`debug state policy could not be understood, refused policy="default/odd" ${ENDS}`]);
});

test('a policy that a workload refers to and nobody sent is warned about once', () => {
  const { lines, policyLog } = logged({ filter: 'info' });
  policyLog.missing(['default/gone', 'default/lost']);
  policyLog.missing(['default/gone']);
  assert.deepEqual(lines, [
    'warn state skipping unknown policy default/gone',
    'warn state skipping unknown policy default/lost',
  ]);
});
