/** A client that starts again while its control plane is away begins with what it had (`ResponseLog`). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../../src/base/log.ts';
import { ResponseLog } from '../../../src/xds/response-log.ts';
import { type Directory, directory, localhost, serve } from '../rpc/rpc-fixture.ts';
import { ADDRESS, forever, POLICY, policy, type ResponseInit, scripted, subject, workload } from './xds-fixture.ts';

const AWAY = { kind: 'tls', host: 'localhost', port: 1 } as const;

function archiveIn(files: Directory): ResponseLog {
  return new ResponseLog({ path: files.path('mesh.xds'), scope: 's', maxBytes: 64 * 1024 * 1024, log: silentLogger });
}

/** Lets a client of its own take `responses`, and ends it. */
async function told(files: Directory, responses: readonly ResponseInit[], isOnDemand = false): Promise<void> {
  const { promise: done, resolve } = Promise.withResolvers<void>();
  const script = scripted(async function* (talk) {
    for (const response of responses) {
      yield response;
      await talk.answer(response.typeUrl ?? '', response.nonce ?? '');
    }
    resolve();
    await forever(talk);
  });
  await using server = await serve(script);
  await using archive = archiveIn(files);
  await using _agent = subject(localhost(server), { archive, isOnDemand });
  await done;
}

test('mesh and readiness are there again without a control plane, and the next stream echoes what is held', async () => {
  using files = directory();
  await told(files, [
    { typeUrl: ADDRESS, nonce: '1', resources: [workload('a'), workload('b')] },
    { typeUrl: POLICY, nonce: '2', resources: [policy('p')] },
    { typeUrl: ADDRESS, nonce: '3', removedResources: ['a'] },
  ]);
  {
    await using archive = archiveIn(files);
    await using agent = subject(AWAY, { archive });
    await agent.until(() => agent.isReady, 'readiness');
    assert.deepEqual(
      [...agent.index.workloads.all()].map(({ uid }) => uid),
      ['b'],
    );
    assert.deepEqual(
      agent.index.policies.accepted().map(({ name }) => name),
      ['p'],
    );
  }
  const { promise: echoed, resolve } = Promise.withResolvers<Record<string, string>>();
  const script = scripted(async function* (talk) {
    resolve((await talk.heard()).initialResourceVersions);
    yield { typeUrl: ADDRESS, nonce: 'a' };
    await forever(talk);
  });
  await using server = await serve(script);
  await using archive = archiveIn(files);
  await using _agent = subject(localhost(server), { archive });
  assert.deepEqual(await echoed, { b: workload('b').version });
});

test('half a mesh on disk does not make an agent ready', async () => {
  using files = directory();
  await told(files, [{ typeUrl: ADDRESS, nonce: '1', resources: [workload('a')] }]);
  await using archive = archiveIn(files);
  await using agent = subject(AWAY, { archive });
  await agent.until(() => agent.counted.includes('ended ConnectionError'), 'a try to connect');
  assert.deepEqual([agent.isReady, agent.index.workloads.byUid('a')?.uid], [false, 'a']);
});

/** Each is told after the other type as a whole. */
const REFUSED_AT_FIRST = [
  { typeUrl: POLICY, bad: policy('bad', { action: 9 as never }), good: policy('good'), other: ADDRESS },
  { typeUrl: ADDRESS, bad: workload('bad', { status: 9 as never }), good: workload('good'), other: POLICY },
] as const;
for (const { typeUrl, bad, good, other } of REFUSED_AT_FIRST) {
  const what = typeUrl === POLICY ? 'policies' : 'addresses';
  test(`${what} that were refused when they were told first do not make an agent ready after a restart, until told whole`, async () => {
    using files = directory();
    await told(files, [
      { typeUrl: other, nonce: '1' },
      { typeUrl, nonce: '2', resources: [bad, good] },
      { typeUrl, nonce: '3', resources: [good] },
    ]);
    const isReadyAlone = async (): Promise<boolean> => {
      await using archive = archiveIn(files);
      await using agent = subject(AWAY, { archive });
      await agent.until(() => agent.counted.includes('ended ConnectionError'), 'a try to connect');
      return agent.isReady;
    };
    assert.equal(await isReadyAlone(), false);
    await told(files, [{ typeUrl, nonce: '4', resources: [good] }]);
    assert.equal(await isReadyAlone(), true);
  });
}

test('a policy that could not be read fails closed after a restart, too, until the control plane takes it back', async () => {
  using files = directory();
  const bad = policy('bad', { action: 9 as never });
  await told(files, [
    { typeUrl: ADDRESS, nonce: '1' },
    { typeUrl: POLICY, nonce: '2', resources: [policy('good')] },
    { typeUrl: POLICY, nonce: '3', resources: [bad] },
  ]);
  const names = (agent: { index: { policies: { rejected(): readonly { name: string }[] } } }) =>
    agent.index.policies.rejected().map(({ name }) => name);
  {
    await using archive = archiveIn(files);
    await using agent = subject(AWAY, { archive });
    await agent.until(() => agent.isReady, 'readiness');
    assert.deepEqual([names(agent), agent.index.policies.accepted().length], [['bad'], 1]);
  }
  await told(files, [{ typeUrl: POLICY, nonce: '4' }]);
  await using archive = archiveIn(files);
  await using agent = subject(AWAY, { archive });
  await agent.until(() => agent.isReady, 'readiness');
  assert.deepEqual(names(agent), []);
});

test('a copy that went with its workload does not bring it back', async () => {
  using files = directory();
  const copy = { ...workload('w'), name: '/10.0.0.1' };
  await told(
    files,
    [
      { typeUrl: POLICY, nonce: '1' },
      { typeUrl: ADDRESS, nonce: '2', resources: [workload('w'), copy] },
      { typeUrl: ADDRESS, nonce: '3', removedResources: ['w'] },
    ],
    true,
  );
  await using archive = archiveIn(files);
  await using agent = subject(AWAY, { archive, isOnDemand: true });
  await agent.until(() => agent.isReady, 'readiness');
  assert.deepEqual([...agent.index.workloads.all()], []);
});
