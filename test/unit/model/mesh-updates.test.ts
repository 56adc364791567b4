import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { dumpMesh } from '../../../src/model/dump.ts';
import { selectEndpoint } from '../../../src/model/load-balance.ts';
import { EMPTY_MESH, MeshIndex, type MeshState } from '../../../src/model/mesh-index.ts';
import type { MeshUpdate } from '../../../src/model/mesh-update.ts';
import { type Policy, policyKey, type RejectedPolicy } from '../../../src/model/policy.ts';
import { scopeRank, scopeValue } from '../../../src/model/scope-rank.ts';
import { type Scope, type Service, serviceKey, type Workload } from '../../../src/model/workload.ts';
import { memberOf, NOTHING, policy, range, STANDARD, seeded, service, vip, workload } from './sample-mesh.ts';

/** What a source that tells everything each time would say after `update`: what it brings is told last. */
function after(state: MeshState, update: MeshUpdate): MeshState {
  const policies = [...update.policies, ...update.rejectedPolicies].map(policyKey);
  return {
    workloads: told(state.workloads, update.workloads, (one) => one.uid, update.removedWorkloads),
    services: told(state.services, update.services, serviceKey, update.removedServices),
    policies: told(state.policies, update.policies, policyKey, [
      ...update.rejectedPolicies.map(policyKey),
      ...update.removedPolicies,
    ]),
    rejectedPolicies: told(
      state.rejectedPolicies.filter((one) => !policies.includes(policyKey(one))),
      update.rejectedPolicies,
      policyKey,
      update.removedPolicies,
    ),
  };
}

function told<T>(known: readonly T[], news: readonly T[], keyOf: (one: T) => string, removed: readonly string[]): T[] {
  const byKey = new Map(known.map((one) => [keyOf(one), one]));
  for (const one of news) {
    byKey.delete(keyOf(one));
    byKey.set(keyOf(one), one);
  }
  for (const key of removed) byKey.delete(key);
  return [...byKey.values()];
}

// A small world, so that records collide in every way: addresses, names, hosts, ranges, memberships, policies.
const NAMESPACES = ['default', 'shop'] as const;
const NETWORKS = ['', 'far'] as const;
const IPS = ['10.0.0.1', '10.0.0.2', '10.1.0.1', 'fd00::1'] as const;
const UIDS = ['c//Pod/default/a', 'c//Pod/default/b', 'c/networking.istio.io/WorkloadEntry/default/e', 'x'] as const;
const SERVICE_NAMES = ['web', 'api'] as const;
const RANGES = ['10.0.0.0/8', '10.1.0.0/16', 'fd00::/8'] as const;
const POLICY_NAMES = ['p', 'q'] as const;

const SOURCES = NETWORKS.map((network) => workload('source', { network }));

const workloads: fc.Arbitrary<Workload> = fc
  .record({
    uid: fc.constantFrom(...UIDS),
    name: fc.constantFrom('a', 'b'),
    namespace: fc.constantFrom(...NAMESPACES),
    network: fc.constantFrom(...NETWORKS),
    node: fc.constantFrom('node-1', 'node-2'),
    ips: fc.array(fc.constantFrom(...IPS), { maxLength: 3 }),
    hostname: fc.constantFrom('', 'web.example.com'),
    protocol: fc.constantFrom('TCP', 'HBONE'),
    networkMode: fc.constantFrom('Standard', 'Standard', 'HostNetwork'),
    status: fc.constantFrom('Healthy', 'Unhealthy'),
    capacity: fc.integer({ min: 0, max: 3 }),
    services: fc
      .subarray([...SERVICE_NAMES])
      .map((names) => memberOf(Object.fromEntries(names.map((name) => [name, { 80: 8_080 }])))),
    authorizationPolicies: fc.subarray(['default/p', 'shop/q', 'default/unknown']),
  })
  .map((fields) => workload(fields.name, { ...fields, serviceAccount: fields.name }));

const services: fc.Arbitrary<Service> = fc
  .record({
    name: fc.constantFrom(...SERVICE_NAMES),
    namespace: fc.constantFrom(...NAMESPACES),
    vips: fc.array(fc.tuple(fc.constantFrom(...IPS), fc.constantFrom(...NETWORKS)), { maxLength: 2 }),
    cidrVips: fc.array(fc.tuple(fc.constantFrom(...RANGES), fc.constantFrom(...NETWORKS)), { maxLength: 2 }),
    canonical: fc.boolean(),
    visibility: fc.constantFrom('Public', 'Namespace'),
    healthPolicy: fc.constantFrom('OnlyHealthy', 'AllowAll'),
    mode: fc.constantFrom('Standard', 'Strict', 'Failover'),
    routingPreferences: fc.subarray<Scope>(['Network', 'Node']),
  })
  .map(({ healthPolicy, mode, routingPreferences, vips, cidrVips, ...fields }) =>
    service(fields.name, {
      ...fields,
      vips: vips.map((args) => vip(...args)),
      cidrVips: cidrVips.map((args) => range(...args)),
      loadBalancer: { healthPolicy, mode, routingPreferences },
    }),
  );

const policyFields = {
  name: fc.constantFrom(...POLICY_NAMES),
  namespace: fc.constantFrom(...NAMESPACES),
  scope: fc.constantFrom('Global', 'Namespace', 'WorkloadSelector'),
} as const;

const policies: fc.Arbitrary<Policy> = fc
  .record({ ...policyFields, action: fc.constantFrom('Allow', 'Deny'), dryRun: fc.boolean() })
  .map((fields) => policy(fields.name, fields));

const rejectedPolicies: fc.Arbitrary<RejectedPolicy> = fc.record({ ...policyFields, why: fc.constant('unreadable') });

/** A key is brought or removed, never both, as `MeshUpdate` promises. */
const updates: fc.Arbitrary<MeshUpdate> = fc
  .record({
    workloads: fc.array(workloads, { maxLength: 3 }),
    services: fc.array(services, { maxLength: 2 }),
    policies: fc.uniqueArray(policies, { maxLength: 2, selector: policyKey }),
    rejectedPolicies: fc.uniqueArray(rejectedPolicies, { maxLength: 1, selector: policyKey }),
    removedWorkloads: fc.subarray([...UIDS, 'never-told']),
    removedServices: fc.subarray(['default/web.default.svc.cluster.local', 'shop/api.shop.svc.cluster.local']),
    removedPolicies: fc.subarray(['default/p', 'shop/q']),
  })
  .map((update) => {
    const rejected = new Set(update.rejectedPolicies.map(policyKey));
    const accepted = update.policies.filter((one) => !rejected.has(policyKey(one)));
    const brought = new Set([
      ...update.workloads.map(({ uid }) => uid),
      ...update.services.map(serviceKey),
      ...accepted.map(policyKey),
      ...rejected,
    ]);
    const removals = (keys: readonly string[]): string[] => keys.filter((key) => !brought.has(key));
    return {
      ...update,
      policies: accepted,
      removedWorkloads: removals(update.removedWorkloads),
      removedServices: removals(update.removedServices),
      removedPolicies: removals(update.removedPolicies),
    };
  });

/** Everything a reader can ask about this world. */
function answers(index: MeshIndex): unknown {
  const all = [...index.workloads.all()];
  const { workloads, services, policies, stagedServices } = dumpMesh(index);
  return {
    dump: [[...workloads], [...services], [...policies], stagedServices],
    sizes: [index.workloads.size, index.services.size],
    owners: NETWORKS.flatMap((network) =>
      IPS.flatMap((ip) => [undefined, ...NAMESPACES].map((client) => index.owner(network, ip, client))),
    ),
    byAddress: NETWORKS.flatMap((network) => IPS.map((ip) => index.workloads.byAddress(network, ip))),
    byHostname: NAMESPACES.map((namespace) => index.workloads.byHostname(namespace, 'web.example.com')),
    services: SERVICE_NAMES.flatMap((name) =>
      NAMESPACES.map((namespace) => index.services.byHostname(`${name}.${namespace}.svc.cluster.local`, namespace)),
    ),
    members: [...index.services.all()].map((one) => [
      index.members(one).all,
      index.endpoints(one),
      index.members(one).maxCapacity,
      index.memberCounts(one),
    ]),
    memberships: all.map((one) => index.servicesOf(one)),
    policies: all.map((one) => decidedBy(index, one)),
    // One node, as in an agent: the index keeps what it found for the node asked last.
    local: NAMESPACES.flatMap((namespace) =>
      ['a', 'b'].map((name) => index.localWorkload({ node: 'node-1', namespace, name, serviceAccount: name })),
    ),
  };
}

/**
 * Asked before and after each update: what load balancing keeps must follow. Whoever is chosen is one of the nearest that are
 * fit, and a list of them that is kept has all of them; `fresh` says who they are, having kept nothing.
 */
function assertChoices(index: MeshIndex, fresh: MeshIndex): void {
  for (const one of index.services.all()) {
    for (const source of SOURCES) {
      const fit = nearest(fresh, one, source);
      for (const seed of [1, 2, 3]) {
        const chosen = selectEndpoint(index, { source, service: one, port: 80 }, seeded(seed))?.workload.uid;
        assert(chosen === undefined ? fit.length === 0 : fit.includes(chosen), `${chosen} is not of ${fit.join()}`);
      }
      const scopes = one.loadBalancer.routingPreferences.map((scope) => scopeValue(scope, source));
      const place = { port: 80, isWaypoint: false, network: source.network, scopes };
      const kept = index.members(one).pool(one, place);
      if (kept !== undefined)
        assert.deepEqual(
          kept.members.map(({ uid }) => uid),
          fit,
        );
    }
  }
}

/** UIDs of the fit members of the highest rank, all looked at. */
function nearest(index: MeshIndex, one: Service, source: Workload): string[] {
  const { mode } = one.loadBalancer;
  if (mode === 'Passthrough' || !one.ports.has(80)) return [];
  const ranked = index.endpoints(one).flatMap((member) => {
    const isReachable =
      member.ips.length > 0 ||
      member.hostname !== '' ||
      (member.network !== source.network && member.networkGateway !== undefined);
    const port = member.services.get(serviceKey(one))?.get(80) ?? one.ports.get(80) ?? 0;
    const rank = scopeRank(one.loadBalancer, source, member);
    return isReachable && port > 0 && member.capacity > 0 && rank !== undefined ? [{ uid: member.uid, rank }] : [];
  });
  const best = Math.max(...ranked.map(({ rank }) => rank));
  return ranked.filter(({ rank }) => rank === best).map(({ uid }) => uid);
}

/** Policy sets by key: each index compiles its own predicates. */
function decidedBy(index: MeshIndex, one: Workload): unknown {
  const { deny, allow, dryRun, rejected, missing } = index.policiesFor(one);
  const keys = [deny, allow, dryRun].map((list) => list.map(({ key, action }) => `${action} ${key}`));
  return { keys, rejected, missing };
}

test('after any updates the index answers as one made of the resulting state', () => {
  fc.assert(
    fc.property(fc.array(updates, { maxLength: 6 }), (sequence) => {
      const index = new MeshIndex();
      let state = EMPTY_MESH;
      for (const update of sequence) {
        index.apply(update);
        state = after(state, update);
        assert.deepEqual(answers(index), answers(new MeshIndex(state)));
        assertChoices(index, new MeshIndex(state));
      }
    }),
    { numRuns: 150 },
  );
});

test('the update towards a state makes the index answer as one made of that state', () => {
  fc.assert(
    fc.property(updates, updates, (first, second) => {
      const index = new MeshIndex(after(EMPTY_MESH, first));
      const state = after(EMPTY_MESH, second);
      index.apply(index.updateTo(state));
      assert.deepEqual(answers(index), answers(new MeshIndex(state)));
      assertChoices(index, new MeshIndex(state));
    }),
    { numRuns: 150 },
  );
});

test('a service that is replaced keeps its endpoints, judged by its new health policy', () => {
  const web = service('web');
  const index = new MeshIndex({
    ...EMPTY_MESH,
    services: [web],
    workloads: [workload('ill', { services: memberOf({ web: {} }), status: 'Unhealthy' })],
  });
  assert.equal(index.endpoints(web).length, 0);
  const open = service('web', { loadBalancer: { ...STANDARD, healthPolicy: 'AllowAll' } });
  index.apply({ ...NOTHING, services: [open] });
  assert.deepEqual(
    index.endpoints(open).map(({ name }) => name),
    ['ill'],
  );
});

test('of several workloads at one address the best that is left owns it', () => {
  const at = (uid: string, fields: Partial<Workload> = {}): Workload =>
    workload(uid, { uid, ips: ['10.0.0.1'], ...fields });
  const index = new MeshIndex({
    ...EMPTY_MESH,
    workloads: [at('c//Pod/default/hbone'), at('entry'), at('c//Pod/default/tcp', { protocol: 'TCP' })],
  });
  const owners: (string | undefined)[] = [];
  for (const uid of ['c//Pod/default/hbone', 'c//Pod/default/tcp', 'entry']) {
    owners.push(index.workloads.byAddress('', '10.0.0.1')?.uid);
    index.apply({ ...NOTHING, removedWorkloads: [uid] });
  }
  assert.deepEqual(owners, ['c//Pod/default/hbone', 'c//Pod/default/tcp', 'entry']);
  assert.equal(index.workloads.byAddress('', '10.0.0.1'), undefined);
});

test('a staged endpoint leaves with its workload', () => {
  const index = new MeshIndex({ ...EMPTY_MESH, workloads: [workload('pod', { services: memberOf({ web: {} }) })] });
  assert.equal([...index.stagedEndpoints()].length, 1);
  index.apply({ ...NOTHING, removedWorkloads: ['Kubernetes//Pod/default/pod'] });
  assert.deepEqual([...index.stagedEndpoints()], []);
});

test('a rejected policy takes the place of the accepted one until a good version or its removal', () => {
  const server = workload('server');
  const index = new MeshIndex({ ...EMPTY_MESH, workloads: [server], policies: [policy('p', { rules: [[]] })] });
  const rejected = (): readonly string[] => index.policiesFor(server).rejected;
  const bad: RejectedPolicy = { name: 'p', namespace: 'default', scope: 'Namespace', why: 'unreadable' };
  assert.deepEqual(rejected(), []);
  index.apply({ ...NOTHING, rejectedPolicies: [bad] });
  assert.deepEqual(rejected(), ['default/p']);
  index.apply({ ...NOTHING, policies: [policy('p')] });
  assert.deepEqual(rejected(), []);
  index.apply({ ...NOTHING, rejectedPolicies: [bad] });
  index.apply({ ...NOTHING, removedPolicies: ['default/p'] });
  assert.deepEqual(rejected(), []);
});
