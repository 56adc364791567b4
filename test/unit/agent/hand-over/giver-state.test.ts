import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type GiverEffect,
  type GiverInput,
  type GiverState,
  giverStep,
} from '../../../../src/agent/hand-over/giver-state.ts';
import {
  decodeReply,
  decodeRequest,
  encode,
  inPackets,
  MAX_PACKET_BYTES,
  VERSIONS,
} from '../../../../src/agent/hand-over/protocol.ts';
import { MeshError } from '../../../../src/base/errors.ts';
import type { InheritedConnection } from '../../../../src/proxy/inheritance.ts';

const HELLO = { type: 'hello', ...VERSIONS, build: 'test' } as const;
const PODS = ['a', 'b', 'c'] as const;
const CLAIM = { podUid: 'a', token: '0'.repeat(32), question: { authority: '192.0.2.1:80' } } as const;

/** Who carries each pod, as the effects say it: what a process would do, without the process. */
class World {
  state: GiverState = { kind: 'alone' };
  readonly owner = new Map<string, 'old' | 'new' | 'nobody'>(PODS.map((pod) => [pod, 'old']));
  hasLeft = false;

  step(input: GiverInput): GiverEffect | undefined {
    const { state, effect } = giverStep(this.state, input);
    this.state = state;
    if (effect !== undefined) this.#perform(effect);
    return effect;
  }

  #perform(effect: GiverEffect): void {
    switch (effect.kind) {
      case 'offer':
        assert.equal(this.owner.get(effect.pod), 'old');
        this.owner.set(effect.pod, 'nobody');
        return;
      case 'offer-more':
        assert.equal(this.owner.get(effect.pod), 'new');
        this.owner.set(effect.pod, 'nobody');
        return;
      case 'offer-claimed':
        // After it has left, of a connection that is no pod's of the new one yet.
        if (this.hasLeft) return;
        assert.equal(this.owner.get(effect.pod), 'new');
        this.owner.set(effect.pod, 'nobody');
        return;
      case 'keep':
        assert.ok(this.hasLeft);
        return;
      case 'give':
        if (this.hasLeft) return;
        assert.equal(this.owner.get(effect.pod), 'nobody');
        this.owner.set(effect.pod, 'new');
        return;
      case 'take-back':
        assert.equal(new Set(effect.pods).size, effect.pods.length);
        for (const pod of effect.pods) {
          assert.notEqual(this.owner.get(pod), 'old');
          this.owner.set(pod, 'old');
        }
        return;
      case 'leave':
        this.hasLeft = true;
        return;
      case 'welcome':
      case 'refuse':
      case 'yield-servers':
      case 'tell':
    }
  }
}

const pod = fc.constantFrom(...PODS);
const input: fc.Arbitrary<GiverInput> = fc.oneof(
  fc.constant(HELLO),
  fc.record({ type: fc.constant('hello' as const), min: fc.nat(3), max: fc.nat(3), build: fc.string() }),
  fc.constant({ type: 'yield-servers' as const }),
  fc.constant({ type: 'inherit' as const }),
  fc.record({ type: fc.constant('take' as const), pod }),
  fc.record({ type: fc.constant('more' as const), pod }),
  fc.record({ type: fc.constant('claim' as const), pod, claim: fc.constant(CLAIM) }),
  fc.record({ type: fc.constant('accept' as const), pod }),
  fc.constant({ type: 'commit' as const }),
  fc.constant({ type: 'lost' as const }),
);

test('whatever a successor says, and whenever it is lost, each pod has one owner and comes back unless it has committed', () => {
  fc.assert(
    fc.property(fc.array(input, { maxLength: 40 }), (inputs) => {
      const world = new World();
      for (const one of inputs) {
        const effect = world.step(one);
        // The exchange ends with a refusal, which is a loss.
        if (effect?.kind === 'refuse') world.step({ type: 'lost' });
      }
      world.step({ type: 'lost' });
      const owners = new Set(world.owner.values());
      assert.ok(!owners.has('nobody'));
      if (!world.hasLeft) assert.deepEqual([...owners], ['old']);
      assert.equal(world.state.kind, world.hasLeft ? 'left' : 'alone');
    }),
  );
});

test('a whole exchange gives every pod, then the node', () => {
  const world = new World();
  const said = [
    HELLO,
    { type: 'yield-servers' },
    ...PODS.flatMap((name) =>
      (['take', 'accept', 'more', 'accept', 'more', 'accept'] as const).map((type) => ({ type, pod: name })),
    ),
    { type: 'commit' },
  ] as const;
  const effects = said.map((one) => world.step(one)?.kind);
  assert.deepEqual(effects.slice(0, 6), ['welcome', 'yield-servers', 'offer', 'give', 'offer-more', 'give']);
  assert.equal(effects.at(-1), 'leave');
  assert.deepEqual([...new Set(world.owner.values())], ['new']);
});

for (const [name, inputs] of [
  ['taking a pod without a greeting', [{ type: 'take', pod: 'a' }]],
  ['accepting what was not offered', [HELLO, { type: 'accept', pod: 'a' }]],
  ['taking a pod twice', [HELLO, { type: 'take', pod: 'a' }, { type: 'accept', pod: 'a' }, { type: 'take', pod: 'a' }]],
  ['asking for connections of a pod that was not given', [HELLO, { type: 'more', pod: 'a' }]],
  ['committing while an offer is open', [HELLO, { type: 'take', pod: 'a' }, { type: 'commit' }]],
  ['greeting with versions of another time', [{ ...HELLO, min: VERSIONS.max + 1, max: VERSIONS.max + 9 }]],
] satisfies [string, GiverInput[]][]) {
  test(`${name} is refused`, () => {
    const world = new World();
    assert.equal(inputs.map((one) => world.step(one)).at(-1)?.kind, 'refuse');
  });
}

test('any bytes at all are a message or a MeshError', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => new TextEncoder().encode(text)),
    input.filter(({ type }) => type !== 'lost').map((one) => encode(one as Parameters<typeof encode>[0])),
  );
  fc.assert(
    fc.property(bytes, (data) => {
      for (const decode of [decodeRequest, decodeReply]) {
        try {
          decode(data);
        } catch (error) {
          assert.ok(error instanceof MeshError && error.code === 'CV-HAND-OVER');
        }
      }
    }),
  );
});

test('connections go out in packets that the socket takes, in order, whatever their size', () => {
  const size = fc.oneof(fc.nat(2_000), fc.integer({ min: 20_000, max: 60_000 }));
  fc.assert(
    fc.property(fc.array(size, { maxLength: 300 }), (sizes) => {
      const connections = sizes.map((bytes, at) => inherited(at, bytes));
      const parts = [...inPackets(connections)];
      assert.deepEqual(parts.flat(), connections);
      for (const part of parts) {
        assert.ok(part.length <= 120);
        assert.ok(encode({ type: 'connections', connections: part }).length <= MAX_PACKET_BYTES);
      }
    }),
    { numRuns: 30 },
  );
});

function inherited(at: number, textBytes: number): InheritedConnection {
  const ends = { src: { ip: '192.0.2.1', port: at }, dst: { ip: '192.0.2.2', port: 80 } };
  const labels = { reporter: 'source', securityPolicy: 'unknown' } as const;
  const start: InheritedConnection['start'] = {
    id: String(at),
    podUid: 'x'.repeat(textBytes),
    direction: 'outbound',
    protocol: 'TCP',
    ...ends,
    labels,
  };
  return { start, sockets: { downstream: at, upstream: at }, pausedAtMs: 1 };
}
