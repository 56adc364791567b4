import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { AdsResource } from '../../../src/model/ads-names.ts';
import { type AdsResponse, AdsState } from '../../../src/model/ads-state.ts';
import { ADDRESS, aliasOf, ModelWorld, POLICY } from './ads-model.ts';

const WILDCARD = [
  { url: ADDRESS, isOnDemand: false },
  { url: POLICY, isOnDemand: false },
];
const ON_DEMAND = [{ url: ADDRESS, isOnDemand: true }, ...WILDCARD.slice(1)];

function resource(name: string, fields: Partial<AdsResource> = {}): AdsResource {
  return { name, version: 'v1', aliases: [], key: name, ...fields };
}

function response(typeUrl: string, fields: Partial<AdsResponse> = {}): AdsResponse {
  return { typeUrl, nonce: 'n', resources: [], removed: [], ...fields };
}

function versionsOf(state: AdsState, url = ADDRESS): Record<string, string> {
  const request = state.opened().find(({ typeUrl, isFirst }) => isFirst && typeUrl === url);
  return Object.fromEntries(request?.initialVersions ?? assert.fail('no request'));
}

describe('requests', () => {
  test('a stream starts with both types in order, each as a wildcard and with the node', () => {
    const requests = new AdsState(WILDCARD).opened();
    assert.deepEqual(
      requests.map(({ typeUrl, isFirst, subscribe, unsubscribe, nonce }) => [
        typeUrl,
        isFirst,
        subscribe,
        unsubscribe,
        nonce,
      ]),
      [
        [ADDRESS, true, [], [], ''],
        [POLICY, true, [], [], ''],
      ],
    );
  });

  test('on demand, addresses start as "*" taken back at once; policies never do', () => {
    const requests = new AdsState(ON_DEMAND).opened();
    assert.deepEqual(
      requests.map(({ typeUrl, subscribe, unsubscribe }) => [typeUrl, subscribe, unsubscribe]),
      [
        [ADDRESS, ['*'], ['*']],
        [POLICY, [], []],
      ],
    );
  });

  test('an answer carries the nonce, a refusal its reason too, and neither the node', () => {
    const state = new AdsState(WILDCARD);
    state.opened();
    const { request } = state.accept(response(ADDRESS, { nonce: 'a' }));
    assert.deepEqual([request.nonce, request.error, request.isFirst], ['a', undefined, false]);
    const refusal = state.reject(response(ADDRESS, { nonce: 'b' }), 'x: bad', []);
    assert.deepEqual([refusal.nonce, refusal.error, refusal.isFirst], ['b', 'x: bad', false]);
  });

  test('the next stream echoes what was accepted; what was refused or removed is not echoed', () => {
    const state = new AdsState(WILDCARD);
    state.opened();
    state.accept(response(ADDRESS, { resources: [resource('a'), resource('b', { version: 'v7' }), resource('c')] }));
    state.accept(response(ADDRESS, { removed: ['c', 'never there'] }));
    state.reject(response(ADDRESS, { resources: [resource('d')] }), 'd: bad', [{ name: 'd', key: 'd' }]);
    state.accept(response(POLICY, { resources: [resource('ns/p', { version: '' })] }));
    assert.deepEqual(versionsOf(state), { a: 'v1', b: 'v7' });
    assert.deepEqual(versionsOf(state, POLICY), { 'ns/p': '' });
  });

  test('an echo over the limit is left out, and what the first response does not tell again is gone', () => {
    const state = new AdsState(WILDCARD, 40);
    state.opened();
    state.accept(response(ADDRESS, { resources: ['a', 'b', 'c', 'd'].map((name) => resource(name)) }));
    assert.deepEqual(versionsOf(state), {});
    const { removedKeys } = state.accept(response(ADDRESS, { resources: [resource('a'), resource('d')] }));
    assert.deepEqual([...removedKeys], ['b', 'c']);
    assert.deepEqual([...state.accept(response(ADDRESS, { resources: [resource('a')] })).removedKeys], []);
  });

  test('on demand, names over the limit are asked for again in several requests', () => {
    const state = new AdsState(ON_DEMAND, 40);
    state.opened();
    state.accept(response(ADDRESS, { resources: ['a', 'b', 'c', 'd', 'e'].map((name) => resource(name)) }));
    const [first, ...more] = state.opened().filter(({ typeUrl }) => typeUrl === ADDRESS);
    assert.deepEqual([first?.subscribe, first?.initialVersions.size], [['*'], 0]);
    assert.deepEqual(
      more.map(({ subscribe }) => subscribe),
      [['a', 'b', 'c', 'd'], ['e']],
    );
  });
});

describe('readiness', () => {
  test('both types have to be accepted, an empty answer counts', () => {
    const state = new AdsState(WILDCARD);
    state.opened();
    state.accept(response(ADDRESS));
    assert.equal(state.isReady, false);
    state.accept(response(POLICY));
    assert.equal(state.isReady, true);
  });

  test('on demand nothing is waited for but the policies', () => {
    const state = new AdsState(ON_DEMAND);
    state.opened();
    assert.equal(state.isReady, false);
    state.accept(response(POLICY));
    assert.equal(state.isReady, true);
  });

  test('a small good push after a refused first one is not the whole mesh: another stream has to tell it', () => {
    const state = new AdsState(WILDCARD);
    state.opened();
    state.accept(response(POLICY));
    state.reject(response(ADDRESS), 'bad', []);
    const { isResyncDue } = state.accept(response(ADDRESS, { resources: [resource('mended')] }));
    assert.deepEqual([isResyncDue, state.isReady, state.isBehind], [true, false, true]);
    state.opened();
    assert.equal(state.accept(response(ADDRESS)).isResyncDue, false);
    assert.deepEqual([state.isReady, state.isBehind], [true, false]);
  });

  test('losing the stream does not take readiness away', () => {
    const state = new AdsState(WILDCARD);
    state.opened();
    state.accept(response(ADDRESS));
    state.accept(response(POLICY));
    assert.equal(state.isReady, true);
  });
});

describe('demands', () => {
  for (const [how, answer] of [
    ['a resource of that name', { resources: [resource('/10.0.0.1', { key: 'uid' })] }],
    ['a resource with that alias', { resources: [resource('uid', { aliases: ['/10.0.0.2', '/10.0.0.1'] })] }],
    ['the word that there is none', { removed: ['/10.0.0.1'] }],
  ] as const) {
    test(`a key is released by ${how}`, () => {
      const state = new AdsState(ON_DEMAND);
      state.opened();
      state.demand('/10.0.0.1');
      assert.deepEqual(state.question()?.subscribe, ['/10.0.0.1']);
      assert.deepEqual(state.accept(response(ADDRESS, { resources: [resource('other')] })).released, []);
      assert.deepEqual(state.accept(response(ADDRESS, answer)).released, ['/10.0.0.1']);
      assert.equal(state.pending.size, 0);
    });
  }

  test('a key is asked for once while it is pending, and again after it was answered', () => {
    const state = new AdsState(ON_DEMAND);
    state.opened();
    const asksFor = (): readonly string[] => {
      state.demand('k');
      return state.question()?.subscribe ?? [];
    };
    assert.deepEqual([asksFor(), asksFor()], [['k'], []]);
    state.accept(response(ADDRESS, { removed: ['k'] }));
    assert.deepEqual(asksFor(), ['k']);
  });

  test('one question asks for all that was demanded since the last one, except what is abandoned or answered meanwhile', () => {
    const state = new AdsState(ON_DEMAND);
    state.opened();
    for (const key of ['a', 'b', 'c', 'd']) state.demand(key);
    state.abandon('b');
    state.accept(response(ADDRESS, { removed: ['c'] }));
    assert.deepEqual(state.question()?.subscribe, ['a', 'd']);
    assert.equal(state.question(), undefined);
  });

  test('pending keys go with the next stream, with a version that nothing has; abandoned ones do not', () => {
    const state = new AdsState(ON_DEMAND);
    state.demand('early');
    state.demand('given up');
    state.abandon('given up');
    assert.deepEqual(versionsOf(state), { early: '' });
    assert.equal(state.question(), undefined);
  });

  test('a refused answer releases nobody', () => {
    const state = new AdsState(ON_DEMAND);
    state.opened();
    state.demand('k');
    state.reject(response(ADDRESS, { resources: [resource('k')] }), 'k: bad', []);
    assert.deepEqual([...state.pending], ['k']);
  });

  test('without on-demand types a demand asks nobody', () => {
    const state = new AdsState(WILDCARD);
    state.opened();
    state.demand('k');
    assert.deepEqual([state.question(), state.pending.size], [undefined, 0]);
  });
});

describe('names', () => {
  function demanded(): AdsState {
    const state = new AdsState(ON_DEMAND);
    state.opened();
    return state;
  }
  const copy = resource('/10.0.0.1', { key: 'uid' });
  const removedBy = (state: AdsState, fields: Partial<AdsResponse>): readonly string[] => [
    ...state.accept(response(ADDRESS, fields)).removedKeys,
  ];

  test('a resource outlives the copy that was named like the demand', () => {
    const state = demanded();
    state.accept(response(ADDRESS, { resources: [resource('uid'), copy] }));
    assert.deepEqual(removedBy(state, { removed: ['/10.0.0.1'] }), []);
    assert.deepEqual(removedBy(state, { removed: ['uid'] }), ['uid']);
  });

  test('a resource that is removed takes its copies along', () => {
    const state = demanded();
    state.accept(response(ADDRESS, { resources: [resource('uid'), copy] }));
    assert.deepEqual(removedBy(state, { removed: ['uid'] }), ['uid']);
    assert.equal(state.held(ADDRESS), 0);
  });

  test('a resource known by copies only is gone with the last of them', () => {
    const state = demanded();
    state.accept(response(ADDRESS, { resources: [copy, resource('/10.0.0.2', { key: 'uid' })] }));
    assert.deepEqual(removedBy(state, { removed: ['/10.0.0.1'] }), []);
    assert.deepEqual(removedBy(state, { removed: ['/10.0.0.2'] }), ['uid']);
  });

  test('an address that moves to another workload takes the old one along unless it is held by its own name', () => {
    const state = demanded();
    const moved = resource('/10.0.0.1', { key: 'uid2' });
    state.accept(response(ADDRESS, { resources: [copy] }));
    assert.deepEqual(removedBy(state, { resources: [moved] }), ['uid']);
    assert.deepEqual(removedBy(state, { resources: [copy, resource('uid2')] }), []);
  });

  test('of a name that a response tells twice the last resource counts, and nothing is left of the first', () => {
    const state = demanded();
    const other = resource('/10.0.0.1', { key: 'uid2' });
    assert.deepEqual(removedBy(state, { resources: [copy, other] }), ['uid']);
    assert.deepEqual(removedBy(state, { resources: [copy, other, resource('uid')] }), []);
    assert.deepEqual(removedBy(state, { removed: ['/10.0.0.1', 'uid'] }), ['uid2', 'uid']);
  });

  test('removal wins over a resource of the same response', () => {
    const state = demanded();
    assert.deepEqual(removedBy(state, { resources: [resource('uid')], removed: ['uid'] }), ['uid']);
    assert.equal(state.held(ADDRESS), 0);
  });

  test('a policy that failed closed is let go when it is removed, and when a whole answer does not tell it', () => {
    const state = new AdsState(WILDCARD);
    const reject = (): void => void state.reject(response(POLICY), 'bad', [{ name: 'ns/p', key: 'ns/p' }]);
    state.opened();
    reject();
    assert.deepEqual([...state.accept(response(POLICY, { removed: ['ns/p'] })).removedKeys], ['ns/p']);
    reject();
    state.opened();
    assert.deepEqual([...state.accept(response(POLICY, { resources: [resource('ns/q')] })).removedKeys], ['ns/p']);
    assert.deepEqual([...state.accept(response(POLICY)).removedKeys], []);
  });
});

const names = fc.constantFrom('a', 'b', 'c', 'd');
const url = fc.constantFrom(ADDRESS, POLICY);
const held = fc.record({ content: fc.nat(3), isBad: fc.integer({ min: 0, max: 4 }).map((n) => n === 0) });
type Step = (world: ModelWorld) => void;
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(url, names, held).map(
      ([type, name, to]): Step =>
        ({ server }) =>
          server.set(type, name, to),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(url, names).map(
      ([type, name]): Step =>
        ({ server }) =>
          server.set(type, name, undefined),
    ),
  },
  { weight: 3, arbitrary: fc.constant<Step>(({ server }) => server.push()) },
  { weight: 5, arbitrary: fc.constant<Step>((world) => world.deliver()) },
  { weight: 1, arbitrary: fc.constant<Step>((world) => world.close()) },
  { weight: 2, arbitrary: fc.constant<Step>((world) => world.open()) },
  {
    weight: 2,
    arbitrary: names
      .chain((name) => fc.constantFrom(name, aliasOf(name)))
      .map(
        (key): Step =>
          (world) =>
            world.demand(key),
      ),
  },
);
const steps = fc.array(step, { maxLength: 40 });

/** Everything that is bad becomes good, and each type changes once more. */
function heal({ server }: ModelWorld): void {
  for (const type of [ADDRESS, POLICY] as const) {
    for (const [name, { content, isBad }] of server.store[type]) {
      if (isBad) server.set(type, name, { content, isBad: false });
    }
    server.set(type, 'last', { content: 1, isBad: false });
  }
}

function contents(store: ReadonlyMap<string, { readonly content: number }>): Map<string, number> {
  return new Map([...store].map(([name, { content }]) => [name, content]));
}

describe('any order of pushes, losses, refusals and demands', () => {
  for (const [how, maxEchoBytes] of [
    ['', Infinity],
    [', also when nothing can be echoed', 30],
  ] as const) {
    test(`ends in the state of the server${how}`, () => {
      fc.assert(
        fc.property(steps, (actions) => {
          const world = new ModelWorld(false, maxEchoBytes);
          for (const action of actions) action(world);
          heal(world);
          world.settle();
          assert.deepEqual(world.applied.address, contents(world.server.store.address));
          assert.deepEqual(world.applied.policy, contents(world.server.store.policy));
          assert.deepEqual([world.state.isReady, world.state.isBehind, [...world.failClosed]], [true, false, []]);
        }),
        { numRuns: 500 },
      );
    });

    test(`ends, on demand, with what was asked for as the server has it, and nobody waiting${how}`, () => {
      fc.assert(
        fc.property(steps, (actions) => {
          const world = new ModelWorld(true, maxEchoBytes);
          for (const action of actions) action(world);
          heal(world);
          world.open();
          world.demand('last');
          world.settle();
          const watched = [...world.server.store.address].filter(([name]) => world.server.watched.has(name));
          assert.deepEqual(world.applied.address, contents(new Map(watched)));
          assert.deepEqual(world.applied.policy, contents(world.server.store.policy));
          assert.deepEqual([...world.state.pending], []);
        }),
        { numRuns: 500 },
      );
    });
  }
});
