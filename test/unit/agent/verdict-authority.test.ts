import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Certificates, VerdictAuthority } from '../../../src/agent/verdict-authority.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import type { InboundQuestion, VerdictPush } from '../../../src/model/verdict.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { policy, SETTINGS, workload } from '../model/sample-mesh.ts';

const pod = { uid: 'p1', name: 'server', namespace: 'default', serviceAccount: 'server' };
const server = workload('server', { ips: ['10.0.0.2'] });
const client = workload('client', { ips: ['10.0.0.1'], node: 'node-2' });
const open: MeshState = { ...EMPTY_MESH, workloads: [server, client] };
const closed: MeshState = { ...open, policies: [policy('nobody', { rules: [] })] };

function world() {
  const clock = new FakeClock();
  const asked: string[] = [];
  const certificates: Certificates = {
    get: () => Promise.reject(new Error('not asked in this test')),
    prefetch: (identity) => asked.push(`+${identity}`),
    forget: (identity) => asked.push(`-${identity}`),
  };
  const authority = new VerdictAuthority(
    { ...SETTINGS, nodeName: 'node-1', isPolicyLogAtInfo: false },
    { clock, random: systemRandom, certificates, log: silentLogger },
  );
  const pushes: VerdictPush[] = [];
  authority.subscribe((push) => pushes.push(push));
  return { clock, authority, pushes, asked };
}

const question = (connectionId: string): InboundQuestion => ({
  podUid: 'p1',
  connectionId,
  peer: { ip: '10.0.0.1', port: 40_000 },
  local: { ip: '10.0.0.2', port: 15_008 },
  hbone: { peerIdentity: 'spiffe://cluster.local/ns/default/sa/client', authority: '10.0.0.2:8080' },
});

test('a policy update closes exactly the live connections it forbids', async () => {
  const { authority, pushes } = world();
  authority.addPod(pod);
  authority.update(open);
  assert.equal((await authority.inbound(question('c1'))).kind, 'accept');
  assert.equal((await authority.inbound(question('ended'))).kind, 'accept');
  authority.release('ended');

  authority.update(closed);

  const refusal = { code: 'CV-POLICY-CHANGED', text: 'connection closed due to policy change' };
  assert.deepEqual(pushes, [{ kind: 'revoke', connectionIds: ['c1'], refusal }]);
});

test('an update that still allows a connection leaves it alone', async () => {
  const { authority, pushes } = world();
  authority.addPod(pod);
  authority.update(open);
  await authority.inbound(question('c1'));
  authority.update({ ...open });
  assert.deepEqual(pushes, []);
});

test('a connection to a workload that left the mesh is judged by what was known when it came', async () => {
  const { authority, pushes } = world();
  authority.addPod(pod);
  authority.update(open);
  await authority.inbound(question('c1'));
  authority.update({ ...open, workloads: [] });
  assert.deepEqual(pushes, []);
  authority.update({ ...closed, workloads: [] });
  assert.equal(pushes.length, 1);
});

test('a refused connection is not tracked', async () => {
  const { authority } = world();
  authority.addPod(pod);
  authority.update(closed);
  assert.equal((await authority.inbound(question('c1'))).kind, 'refuse');
  assert.equal(authority.trackedCount, 0);
});

test('a pod whose record comes late is served as soon as it comes', async () => {
  const { authority, clock } = world();
  authority.addPod(pod);
  const verdict = authority.inbound(question('c1'));
  clock.advance(4_999);
  authority.update(open);
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
  authority.update(open);
  assert.deepEqual(asked, []);
  authority.addPod(pod);
  authority.update(open);
  authority.removePod(pod);
  const identity = 'spiffe://cluster.local/ns/default/sa/server';
  assert.deepEqual(asked, [`+${identity}`, `-${identity}`]);
});
