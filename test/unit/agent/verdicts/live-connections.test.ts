import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LiveConnections } from '../../../../src/agent/verdicts/live-connections.ts';
import type { Clock } from '../../../../src/base/clock.ts';
import { silentLogger } from '../../../../src/base/log.ts';
import type { TrackedConnection } from '../../../../src/model/inbound-verdict.ts';
import { EMPTY_MESH, MeshIndex } from '../../../../src/model/mesh-index.ts';
import type { Policy } from '../../../../src/model/policy.ts';
import { NOTHING, policy, workload } from '../../model/sample-mesh.ts';

const SERVER = workload('server', { ips: ['10.0.0.2'] });

/** Each look at it takes half a millisecond, so that a few connections fill a slice. One timer at a time, as they are due. */
class BusyClock implements Clock {
  readonly turnsMs: number[] = [];
  #nowMs = 0;
  #due: (() => void)[] = [];

  monotonicMs(): number {
    this.#nowMs += 0.5;
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  after(_delayMs: number, fire: () => void): Disposable {
    this.#due.push(fire);
    return { [Symbol.dispose]: () => (this.#due = this.#due.filter((other) => other !== fire)) };
  }

  /** One turn of the event loop; false when nothing was due. */
  turn(): boolean {
    const startMs = this.#nowMs;
    const fire = this.#due.shift();
    fire?.();
    if (fire !== undefined) this.turnsMs.push(this.#nowMs - startMs);
    return fire !== undefined;
  }

  settle(): void {
    for (let turns = 0; this.turn(); turns++) assert(turns < 10_000, 'it never settles');
  }
}

function world() {
  const clock = new BusyClock();
  const index = new MeshIndex({ ...EMPTY_MESH, workloads: [SERVER] });
  const closed: string[] = [];
  const live = new LiveConnections({
    index,
    clock,
    log: silentLogger,
    revoke: (ids) => {
      closed.push(...ids);
      for (const id of ids) live.delete(id);
    },
  });
  const change = (...policies: readonly Policy[]): void => {
    index.apply({ ...NOTHING, policies });
    live.rejudge();
  };
  const add = (from: number, to: number): void => {
    for (let n = from; n < to; n++) live.add(`c${n}`, connection(n));
  };
  return { clock, live, closed, change, add };
}

/** From client account `c<n>`. */
function connection(n: number): TrackedConnection {
  return {
    source: { ip: '10.0.0.1', port: 1_024 + n },
    sourceIdentity: `spiffe://cluster.local/ns/default/sa/c${n}`,
    destination: { ip: '10.0.0.2', port: 8_080 },
    workload: SERVER,
  };
}

/** The one DENY policy of these tests: replaces itself. */
function denying(numbers: readonly number[]): Policy {
  const serviceAccounts = numbers.map((n) => ({ namespace: 'default', serviceAccount: `c${n}` }));
  return policy('deny', { action: 'Deny', rules: [[[{ serviceAccounts }]]] });
}

const ids = (numbers: readonly number[]): string[] => numbers.map((n) => `c${n}`).toSorted();

test('after a change exactly the forbidden connections are closed, each once', () => {
  fc.assert(
    fc.property(fc.nat(200), fc.uniqueArray(fc.nat(200)), (count, denied) => {
      const { clock, live, closed, change, add } = world();
      add(0, count);
      change(denying(denied));
      clock.settle();
      const forbidden = denied.filter((n) => n < count);
      assert.deepEqual(closed.toSorted(), ids(forbidden));
      assert.equal(live.size, count - forbidden.length);
    }),
    { numRuns: 50 },
  );
});

test('no turn of judging lasts longer than a slice, however many connections there are', () => {
  const { clock, closed, change, add } = world();
  add(0, 500);
  change(denying(Array.from({ length: 500 }, (_, n) => n)));
  clock.settle();
  assert.equal(closed.length, 500);
  assert(clock.turnsMs.length > 40, `${clock.turnsMs.length} turns`);
  assert(Math.max(...clock.turnsMs) <= 3, `${Math.max(...clock.turnsMs)} ms`);
});

test('nobody is judged in the turn of the change itself', () => {
  const { clock, closed, change, add } = world();
  add(0, 1);
  change(denying([0]));
  assert.deepEqual(closed, []);
  clock.turn();
  assert.deepEqual(closed, ['c0']);
});

test('a second change while judging counts for those judged already and those not yet', () => {
  const { clock, closed, change, add } = world();
  add(0, 100);
  change(denying([1, 98]));
  clock.turn();
  assert.deepEqual(closed, ['c1']);
  change(denying([2, 97]));
  clock.settle();
  assert.deepEqual(closed.toSorted(), ids([1, 2, 97]));
});

test('a connection that comes while others are judged is not judged again, until the next change', () => {
  const { clock, closed, change, add } = world();
  add(0, 100);
  change(denying([100]));
  clock.turn();
  // As if the policy had let it in: the mesh it was judged by is the current one.
  add(100, 101);
  clock.settle();
  assert.deepEqual(closed, []);
  change(denying([100]));
  clock.settle();
  assert.deepEqual(closed, ['c100']);
});

test('changes that come faster than a round keep nobody waiting for ever', () => {
  const { clock, closed, change, add } = world();
  add(0, 200);
  for (let changes = 0; changes < 100 && closed.length < 1; changes++) {
    change(denying([199]));
    clock.turn();
  }
  assert.deepEqual(closed, ['c199']);
});

test('a connection that ends while others are judged is forgotten', () => {
  const { clock, live, closed, change, add } = world();
  add(0, 100);
  change(denying([99]));
  clock.turn();
  live.delete('c99');
  clock.settle();
  assert.deepEqual(closed, []);
  assert.equal(live.size, 99);
});
