import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { certificateAuthenticator, type TokenReviewStatus, tokenAuthenticator } from '../../../src/control/caller.ts';
import type { CallContext } from '../../../src/rpc/service.ts';
import { meshCa } from '../../support/certs.ts';

const AGENT = 'spiffe://cluster.local/ns/istio-system/sa/ztunnel';
const GOOD: TokenReviewStatus = {
  authenticated: true,
  audiences: ['istio-ca'],
  user: {
    username: 'system:serviceaccount:istio-system:ztunnel',
    groups: ['system:authenticated', 'system:serviceaccounts'],
    extra: {
      'authentication.kubernetes.io/pod-name': ['ztunnel-1'],
      'authentication.kubernetes.io/pod-uid': ['uid-1'],
    },
  },
};

function call(headers: Readonly<Record<string, string>>, clientCertificate?: Uint8Array): CallContext {
  return {
    header: (name) => headers[name],
    peer: '10.0.0.1:4711',
    signal: new AbortController().signal,
    ...(clientCertificate !== undefined && { clientCertificate }),
  };
}

const bearer = { authorization: 'Bearer abc.def', clusterid: 'east' };

function withReview(status: TokenReviewStatus) {
  const asked: unknown[] = [];
  const authenticator = tokenAuthenticator({
    trustDomain: 'cluster.local',
    review: async (...question) => {
      asked.push(question.slice(0, 3));
      return status;
    },
  });
  return { authenticator, asked };
}

test('a token that the API server vouches for is its service account, in its pod', async () => {
  const { authenticator, asked } = withReview(GOOD);

  assert.deepEqual(await authenticator.authenticate(call(bearer)), {
    identity: AGENT,
    namespace: 'istio-system',
    serviceAccount: 'ztunnel',
    clusterId: 'east',
    pod: { name: 'ztunnel-1', uid: 'uid-1' },
  });
  assert.deepEqual(asked, [['abc.def', ['istio-ca'], 'east']]);
});

test('a token that is bound to no pod has no pod, also when only half is known', async () => {
  const extra = { 'authentication.kubernetes.io/pod-name': ['ztunnel-1'] };
  const { authenticator } = withReview({ ...GOOD, user: { ...GOOD.user, extra } });

  assert.equal((await authenticator.authenticate(call(bearer)))?.pod, undefined);
});

test('a call without a bearer token is not for the API server', async () => {
  const { authenticator, asked } = withReview(GOOD);
  for (const headers of [{}, { authorization: 'Basic abc' }, { authorization: 'Bearer ' }]) {
    assert.equal(await authenticator.authenticate(call(headers)), undefined);
  }
  assert.deepEqual(asked, []);
});

const refusals: readonly (readonly [name: string, status: TokenReviewStatus, why: RegExp])[] = [
  ['not authenticated', { ...GOOD, authenticated: false }, /does not know it/],
  ['nothing at all', {}, /does not know it/],
  ['another audience', { ...GOOD, audiences: ['vault'] }, /it is not for istio-ca/],
  ['nothing of audiences, as one does that does not know them', { ...GOOD, audiences: [] }, /it is not for istio-ca/],
  ['an error besides', { ...GOOD, error: 'audience mismatch' }, /audience mismatch/],
  [
    'a user who is no service account',
    { ...GOOD, user: { ...GOOD.user, groups: ['system:masters'] } },
    /no service account/,
  ],
  [
    'a name of another form',
    { ...GOOD, user: { ...GOOD.user, username: 'system:serviceaccount:a:b:c' } },
    /no service account/,
  ],
  [
    'a name that would break an identity',
    { ...GOOD, user: { ...GOOD.user, username: 'system:serviceaccount:a/ns/b:c' } },
    /no service account/,
  ],
];
for (const [name, status, why] of refusals) {
  test(`a review that says ${name} is refused`, async () => {
    await assert.rejects(withReview(status).authenticator.authenticate(call(bearer)), { message: why });
  });
}

test('a token of 16 KiB and more is refused before anybody is asked', async () => {
  const { authenticator, asked } = withReview(GOOD);
  const authorization = `Bearer ${'x'.repeat(16_385)}`;

  await assert.rejects(authenticator.authenticate(call({ authorization })), { message: /too long/ });
  assert.deepEqual(asked, []);
});

test('a client certificate is who it names, if that is of the trust domain, and is bound to no pod', async () => {
  const authenticator = certificateAuthenticator('cluster.local');
  const ca = await meshCa();
  const derOf = async (identity: string): Promise<Buffer> =>
    new X509Certificate((await ca.material(identity)).chainPem).raw;

  assert.deepEqual(await authenticator.authenticate(call({}, await derOf(AGENT))), {
    namespace: 'istio-system',
    serviceAccount: 'ztunnel',
    identity: AGENT,
    clusterId: '',
  });
  const foreign = await derOf(AGENT.replace('cluster.local', 'elsewhere'));
  await assert.rejects(authenticator.authenticate(call({}, foreign)), { message: /it names spiffe:\/\/elsewhere/ });
  assert.equal(await authenticator.authenticate(call({})), undefined);
});
