/** What goes over the wire when a control plane numbers its responses oddly: each is answered once, in order, by its own nonce. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { localhost, serve } from '../rpc/rpc-fixture.ts';
import { ADDRESS, forever, POLICY, policy, type ResponseInit, scripted, subject, workload } from './xds-fixture.ts';

type Answer = readonly [type: string, nonce: string, verdict: 'ack' | 'nack'];

const good = (typeUrl: string, nonce: string): ResponseInit => ({ typeUrl, nonce });
const node = (nonce: string, name: string): ResponseInit => ({
  typeUrl: ADDRESS,
  nonce,
  resources: [workload('w', { node: name })],
});
const bad = (nonce: string): ResponseInit => ({
  typeUrl: POLICY,
  nonce,
  resources: [policy('p', { action: 7 as never })],
});

const sequences: readonly {
  readonly name: string;
  readonly responses: readonly ResponseInit[];
  readonly answers: readonly Answer[];
}[] = [
  {
    name: 'that go backwards',
    responses: [node('9', 'old'), node('3', 'older'), node('1', 'last')],
    answers: [
      [ADDRESS, '9', 'ack'],
      [ADDRESS, '3', 'ack'],
      [ADDRESS, '1', 'ack'],
    ],
  },
  {
    name: 'that come twice',
    responses: [node('1', 'old'), node('1', 'last'), good(POLICY, '1')],
    answers: [
      [ADDRESS, '1', 'ack'],
      [ADDRESS, '1', 'ack'],
      [POLICY, '1', 'ack'],
    ],
  },
  {
    name: 'that are empty',
    responses: [node('', 'old'), good(POLICY, ''), node('', 'last')],
    answers: [
      [ADDRESS, '', 'ack'],
      [POLICY, '', 'ack'],
      [ADDRESS, '', 'ack'],
    ],
  },
  {
    name: 'that one refused and one accepted response share',
    responses: [bad('n'), node('n', 'last'), good(POLICY, 'n'), bad('n')],
    answers: [
      [POLICY, 'n', 'nack'],
      [ADDRESS, 'n', 'ack'],
      [POLICY, 'n', 'ack'],
      [POLICY, 'n', 'nack'],
    ],
  },
  {
    name: 'of 4 KiB and of any letters',
    responses: [node('n'.repeat(4_096), 'old'), node('ñ\u0000\n"', 'last')],
    answers: [
      [ADDRESS, 'n'.repeat(4_096), 'ack'],
      [ADDRESS, 'ñ\u0000\n"', 'ack'],
    ],
  },
];

for (const { name, responses, answers } of sequences) {
  test(`nonces ${name} come back as they are, one answer to each response, and the last response counts`, async () => {
    const heard = Promise.withResolvers<readonly Answer[]>();
    const script = scripted(async function* (talk) {
      // The opening requests of both types.
      for (const _type of [ADDRESS, POLICY]) assert.equal((await talk.heard()).responseNonce, '');
      yield* responses;
      yield good(ADDRESS, 'the end');
      const said: Answer[] = [];
      for (;;) {
        const request = await talk.heard();
        if (request.responseNonce === 'the end') break;
        // An answer is no question: it neither says who asks nor asks for anything.
        assert.equal(request.node, undefined);
        assert.deepEqual([request.resourceNamesSubscribe, request.resourceNamesUnsubscribe], [[], []]);
        assert.deepEqual(request.initialResourceVersions, {});
        said.push([request.typeUrl, request.responseNonce, request.errorDetail === undefined ? 'ack' : 'nack']);
      }
      heard.resolve(said);
      await forever(talk);
    });
    await using server = await serve(script);
    await using agent = subject(localhost(server));
    assert.deepEqual(await heard.promise, answers);
    assert.equal(agent.index.workloads.byUid('w')?.node, 'last');
  });
}

test('an answer carries the nonce of its own stream, never that of one before', async () => {
  const heard: string[] = [];
  const script = scripted(async function* (talk, stream) {
    for (const _type of [ADDRESS, POLICY]) heard.push((await talk.heard()).responseNonce);
    yield good(ADDRESS, `a${stream}`);
    heard.push((await talk.heard()).responseNonce);
    // The first stream ends here.
    if (stream === 0) return;
    yield good(POLICY, `p${stream}`);
    heard.push((await talk.heard()).responseNonce);
    await forever(talk);
  });
  await using server = await serve(script);
  await using agent = subject(localhost(server));
  await agent.until(() => heard.length === 7, 'two streams');
  assert.deepEqual(heard, ['', '', 'a0', '', '', 'a1', 'p1']);
});
