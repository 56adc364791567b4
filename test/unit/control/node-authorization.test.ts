import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Caller } from '../../../src/control/caller.ts';
import { NodeAuthorizer, type PodDirectory, type PodRecord } from '../../../src/control/node-authorization.ts';

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const AGENT: Caller = {
  identity: 'spiffe://cluster.local/ns/istio-system/sa/ztunnel',
  namespace: 'istio-system',
  serviceAccount: 'ztunnel',
  clusterId: 'Kubernetes',
  pod: { name: 'ztunnel-1', uid: 'uid-1' },
};

/** The agent runs on node-1, `cart` there too, `stock` on node-2. */
const PODS: Readonly<Record<string, PodRecord>> = {
  'istio-system/ztunnel-1': { uid: 'uid-1', serviceAccount: 'ztunnel', node: 'node-1' },
  'shop/cart-0': { uid: 'uid-2', serviceAccount: 'cart', node: 'node-1' },
  'shop/stock-0': { uid: 'uid-3', serviceAccount: 'stock', node: 'node-2' },
};
const directory: PodDirectory = {
  pod: (namespace, name) => PODS[`${namespace}/${name}`],
  hasPod: ({ namespace, serviceAccount, node }) =>
    Object.entries(PODS).some(
      ([name, pod]) => name.startsWith(`${namespace}/`) && pod.serviceAccount === serviceAccount && pod.node === node,
    ),
};
const authorizer = new NodeAuthorizer({
  trustedAccounts: new Set(['istio-system/ztunnel']),
  trustDomain: 'cluster.local',
  podsOf: (clusterId) => (clusterId === 'Kubernetes' ? directory : undefined),
});

const { pod: _pod, ...unbound } = AGENT;
const refusals: readonly (readonly [claim: string, caller: Caller, requested: string, why: RegExp | undefined])[] = [
  ['an agent gets the identity of a pod of its node', AGENT, CART, undefined],
  ['and its own', AGENT, AGENT.identity, undefined],
  [
    'a pod of another node is refused',
    AGENT,
    'spiffe://cluster.local/ns/shop/sa/stock',
    /no pod of shop\/stock on node/,
  ],
  ['a pod that does not exist is refused', AGENT, 'spiffe://cluster.local/ns/shop/sa/x', /no pod of shop\/x/],
  ['an account that is not trusted is refused', { ...AGENT, namespace: 'shop' }, CART, /shop\/ztunnel is not among/],
  ['a name that is no identity is refused', AGENT, 'cart', /"cart" is no mesh identity/],
  ['another trust domain is refused', AGENT, CART.replace('cluster.local', 'evil'), /not of trust domain/],
  ['a credential without a pod is refused', unbound, CART, /not bound to a pod/],
  ['an agent of a cluster nobody knows is refused', { ...AGENT, clusterId: 'other' }, CART, /cluster "other" is not/],
  [
    'a token of a pod that is gone is refused',
    { ...AGENT, pod: { name: 'ztunnel-9', uid: 'uid-1' } },
    CART,
    /pod istio-system\/ztunnel-9 is not known/,
  ],
  [
    'a token of a former pod of that name is refused',
    { ...AGENT, pod: { name: 'ztunnel-1', uid: 'uid-0' } },
    CART,
    /has another UID/,
  ],
];
for (const [claim, caller, requested, why] of refusals) {
  test(claim, () => {
    const refusal = authorizer.refusal(caller, requested);
    if (why === undefined) assert.equal(refusal, undefined);
    else assert.match(String(refusal), why);
  });
}

test('a pod that runs as another account than its token is refused', () => {
  const trusted = new NodeAuthorizer({
    trustedAccounts: new Set(['shop/ztunnel']),
    trustDomain: 'cluster.local',
    podsOf: () => directory,
  });
  const caller = { ...AGENT, namespace: 'shop', pod: { name: 'cart-0', uid: 'uid-2' } };

  assert.match(String(trusted.refusal(caller, CART)), /pod cart-0 runs as cart/);
});
