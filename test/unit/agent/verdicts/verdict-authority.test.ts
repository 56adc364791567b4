import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  type AuthoritySettings,
  type Certificates,
  VerdictAuthority,
} from '../../../../src/agent/verdicts/verdict-authority.ts';
import { silentLogger } from '../../../../src/base/log.ts';
import { EMPTY_MESH, type MeshState } from '../../../../src/model/mesh-index.ts';
import type { InboundQuestion, VerdictPush } from '../../../../src/model/verdict.ts';
import { systemRandom } from '../../../../src/sys/system-random.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { DNS_SETTINGS, NOTHING, noHosts, policy, SETTINGS, workload } from '../../model/sample-mesh.ts';

const pod = { uid: 'p1', name: 'server', namespace: 'default', serviceAccount: 'server' };
const server = workload('server', { ips: ['10.0.0.2'] });
const client = workload('client', { ips: ['10.0.0.1'], node: 'node-2' });
const open: MeshState = { ...EMPTY_MESH, workloads: [server, client] };
const closed: MeshState = { ...open, policies: [policy('nobody', { rules: [] })] };

const DENY_ALL = policy('nobody', { action: 'Deny', rules: [[]] });

function world(settings: Partial<AuthoritySettings> = {}) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const certificates: Certificates = {
    get: () => Promise.reject(new Error('not asked in this test')),
    prefetch: (identity) => asked.push(`+${identity}`),
    forget: (identity) => asked.push(`-${identity}`),
  };
  const authority = new VerdictAuthority(
    { ...SETTINGS, nodeName: 'node-1', isPolicyLogAtInfo: false, dns: DNS_SETTINGS, ...settings },
    { clock, random: systemRandom, certificates, lookupHost: noHosts, log: silentLogger },
  );
  const pushes: VerdictPush[] = [];
  authority.subscribe((push) => pushes.push(push));
  /** Live connections are judged again in a later turn. */
  const settle = (): void => clock.advance(0);
  return { clock, authority, pushes, asked, settle };
}

const question = (connectionId: string): InboundQuestion => ({
  podUid: 'p1',
  connectionId,
  peer: { ip: '10.0.0.1', port: 40_000 },
  local: { ip: '10.0.0.2', port: 15_008 },
  hbone: { peerIdentity: 'spiffe://cluster.local/ns/default/sa/client', authority: '10.0.0.2:8080' },
});

test('a policy update closes exactly the live connections it forbids', async () => {
  const { authority, pushes, settle } = world();
  authority.addPod(pod);
  authority.replace(open);
  assert.equal((await authority.inbound(question('c1'))).kind, 'accept');
  assert.equal((await authority.inbound(question('ended'))).kind, 'accept');
  authority.release('ended');

  authority.replace(closed);
  settle();

  const refusal = { code: 'CV-POLICY-CHANGED', text: 'connection closed due to policy change' };
  assert.deepEqual(pushes, [{ kind: 'revoke', connectionIds: ['c1'], refusal }]);
});

test('an update that still allows a connection leaves it alone', async () => {
  const { authority, pushes, settle } = world();
  authority.addPod(pod);
  authority.replace(open);
  await authority.inbound(question('c1'));
  authority.replace({ ...open });
  settle();
  assert.deepEqual(pushes, []);
});

test('a connection to a workload that left the mesh is judged by what was known when it came', async () => {
  const { authority, pushes, settle } = world();
  authority.addPod(pod);
  authority.replace(open);
  await authority.inbound(question('c1'));
  authority.replace({ ...open, workloads: [] });
  settle();
  assert.deepEqual(pushes, []);
  authority.replace({ ...closed, workloads: [] });
  settle();
  assert.equal(pushes.length, 1);
});

test('a refused connection is not tracked', async () => {
  const { authority } = world();
  authority.addPod(pod);
  authority.replace(closed);
  assert.equal((await authority.inbound(question('c1'))).kind, 'refuse');
  assert.equal(authority.trackedCount, 0);
});

test('a pod whose record comes late is served as soon as it comes', async () => {
  const { authority, clock } = world();
  authority.addPod(pod);
  const verdict = authority.inbound(question('c1'));
  clock.advance(4_999);
  authority.replace(open);
  assert.equal((await verdict).kind, 'accept');
});

test('a pod nobody describes is refused after 5 s, by name', async () => {
  const { authority, clock } = world();
  authority.addPod(pod);
  const verdict = authority.outbound({
    podUid: 'p1',
    client: { ip: '10.0.0.2', port: 40_000 },
    target: { ip: '10.0.0.1', port: 80 },
  });
  await nextTurn();
  clock.advance(5_000);
  assert.deepEqual(await verdict, {
    kind: 'refuse',
    refusal: {
      code: 'CV-WORKLOAD-UNKNOWN',
      text: 'failed to fetch information about local workload: server.default (server)',
    },
  });
});

test('certificates are fetched for local pods only, once per identity, and forgotten with the last pod', () => {
  const { authority, asked } = world();
  const plain = { ...open, workloads: open.workloads.map((one) => ({ ...one, protocol: 'TCP' as const })) };
  authority.replace(plain);
  assert.deepEqual(asked, []);
  authority.addPod(pod);
  authority.replace({ ...plain });
  authority.removePod(pod);
  const identity = 'spiffe://cluster.local/ns/default/sa/server';
  assert.deepEqual(asked, [`+${identity}`, `-${identity}`]);
});

test('the certificate of a workload of this node that speaks HBONE is fetched before its pod is captured', () => {
  const { authority, asked } = world();
  const identity = (name: string): string => `spiffe://cluster.local/ns/default/sa/${name}`;
  const workloads = [
    workload('hbone', { ips: ['10.0.0.1'], protocol: 'HBONE' }),
    workload('native', { ips: ['10.0.0.2'], protocol: 'TCP', nativeTunnel: true }),
    workload('plain', { ips: ['10.0.0.3'], protocol: 'TCP' }),
    workload('elsewhere', { ips: ['10.0.0.4'], protocol: 'HBONE', node: 'node-2' }),
  ];
  authority.replace({ ...EMPTY_MESH, workloads });
  assert.deepEqual(asked, [`+${identity('hbone')}`, `+${identity('native')}`]);

  // The same account on another pod keeps the certificate; moving away or turning plain gives it up.
  const [hbone, native] = workloads;
  assert(hbone !== undefined && native !== undefined);
  authority.replace({
    ...EMPTY_MESH,
    workloads: [
      { ...hbone, uid: 'another' },
      { ...native, node: 'node-2' },
    ],
  });
  assert.deepEqual(asked.slice(2), [`-${identity('native')}`]);
  authority.replace(EMPTY_MESH);
  assert.deepEqual(asked.slice(3), [`-${identity('hbone')}`]);
});

test('dedicated to one pod, the agent fetches the certificate of that pod alone', () => {
  const { authority, asked } = world({ isDedicated: true });
  authority.replace({ ...open, workloads: [...open.workloads, workload('neighbour', { ips: ['10.0.0.3'] })] });
  authority.addPod(pod);
  assert.deepEqual(asked, ['+spiffe://cluster.local/ns/default/sa/server']);
});

test('a captured pod keeps its certificate when its record leaves, and a record when its pod leaves', () => {
  const { authority, asked } = world();
  authority.replace(open);
  authority.addPod(pod);
  authority.removePod(pod);
  const identity = 'spiffe://cluster.local/ns/default/sa/server';
  assert.deepEqual(asked, [`+${identity}`]);
  authority.replace({ ...open, workloads: [] });
  assert.deepEqual(asked, [`+${identity}`, `-${identity}`]);
});

test('a certificate that is asked for when its pod has just left is forgotten, unless a pod needs it again by then', async () => {
  const { authority, asked, clock } = world();
  const identity = 'spiffe://cluster.local/ns/default/sa/server';
  authority.replace({ ...open, workloads: [{ ...server, protocol: 'TCP' }] });
  authority.addPod(pod);
  await assert.rejects(authority.certificate(identity));
  authority.removePod(pod);
  await assert.rejects(authority.certificate(identity));
  assert.deepEqual(asked.splice(0), [`+${identity}`, `-${identity}`]);
  clock.advance(60_000);
  assert.deepEqual(asked.splice(0), [`-${identity}`]);

  await assert.rejects(authority.certificate(identity));
  authority.addPod(pod);
  clock.advance(60_000);
  assert.deepEqual(asked.splice(0), [`+${identity}`]);
});

test('an update of policies alone closes what it forbids, and its removal closes nothing', async () => {
  const { authority, pushes, settle } = world();
  authority.addPod(pod);
  authority.replace(open);
  await authority.inbound(question('c1'));

  authority.apply({ ...NOTHING, policies: [DENY_ALL] });
  settle();
  authority.release('c1');
  authority.apply({ ...NOTHING, removedPolicies: ['default/nobody'] });
  settle();

  assert.deepEqual(
    pushes.map((push) => push.kind === 'revoke' && push.connectionIds),
    [['c1']],
  );
  assert.equal((await authority.inbound(question('c2'))).kind, 'accept');
});

test('a policy attached by a new record of the workload alone closes live connections', async () => {
  const { authority, pushes, settle } = world();
  authority.addPod(pod);
  authority.replace({ ...open, policies: [{ ...DENY_ALL, scope: 'WorkloadSelector' }] });
  await authority.inbound(question('c1'));
  authority.apply({ ...NOTHING, workloads: [{ ...server, authorizationPolicies: ['default/nobody'] }] });
  settle();
  assert.equal(pushes.length, 1);
});

test('who waits for a pod is judged by the record it has when its turn comes', async () => {
  const { authority } = world();
  authority.addPod(pod);
  const verdict = authority.inbound(question('c1'));
  await nextTurn();
  authority.apply({ ...NOTHING, workloads: [server], policies: [{ ...DENY_ALL, scope: 'WorkloadSelector' }] });
  authority.apply({ ...NOTHING, workloads: [{ ...server, authorizationPolicies: ['default/nobody'] }] });
  assert.equal((await verdict).kind, 'refuse');
});

test('a pod that is added after its record serves who waited for it', async () => {
  const { authority } = world();
  authority.replace(open);
  const verdict = authority.inbound(question('c1'));
  await nextTurn();
  authority.addPod(pod);
  assert.equal((await verdict).kind, 'accept');
});

test('an identity that two pods share is forgotten with the second, and one that moves is not fetched anew', () => {
  const { authority, asked } = world();
  const named = (name: string, serviceAccount: string) => workload(name, { serviceAccount });
  const pods = ['a', 'b'].map((name) => ({ uid: name, name, namespace: 'default', serviceAccount: 'shared' }));
  const shared = 'spiffe://cluster.local/ns/default/sa/shared';
  for (const each of pods) authority.addPod(each);
  authority.apply({ ...NOTHING, workloads: [named('a', 'shared')] });
  authority.apply({
    ...NOTHING,
    workloads: [named('b', 'shared')],
    removedWorkloads: ['Kubernetes//Pod/default/a'],
  });
  assert.deepEqual(asked, [`+${shared}`]);
  authority.apply({ ...NOTHING, workloads: [{ ...named('b', 'other'), protocol: 'TCP' }] });
  assert.deepEqual(asked, [`+${shared}`, `-${shared}`]);
});
