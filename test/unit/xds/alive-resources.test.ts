import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { DeltaDiscoveryResponseSchema } from '../../../src/wire/pb/discovery_pb.ts';
import { AliveResources } from '../../../src/xds/alive-resources.ts';

interface Told {
  readonly typeUrl: string;
  readonly resources: readonly { readonly name: string; readonly version: string }[];
  readonly removedResources: readonly string[];
}

const encoded = (told: Told): Uint8Array =>
  toBinary(
    DeltaDiscoveryResponseSchema,
    create(DeltaDiscoveryResponseSchema, {
      ...told,
      resources: [...told.resources],
      removedResources: [...told.removedResources],
    }),
  );

/** Type → `name version` of what is given out. */
async function leftOf(all: readonly Told[]): Promise<Map<string, string[]>> {
  const alive = new AliveResources();
  for (const told of all) await alive.take(encoded(told));
  const left = new Map<string, string[]>();
  for (const bytes of await alive.responses()) {
    const { typeUrl, resources } = fromBinary(DeltaDiscoveryResponseSchema, bytes);
    left.set(typeUrl, [...(left.get(typeUrl) ?? []), ...resources.map(({ name, version }) => `${name} ${version}`)]);
  }
  return left;
}

const names = fc.constantFrom('a', 'b', 'c');
const toldOnce: fc.Arbitrary<Told> = fc.record({
  typeUrl: fc.constantFrom('workloads', 'policies'),
  resources: fc.array(fc.record({ name: names, version: fc.constantFrom('1', '2') }), { maxLength: 4 }),
  removedResources: fc.array(names, { maxLength: 2 }),
});

test('of each resource the last version is left, unless it was removed since; a type told to be empty is left, too', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(toldOnce, { maxLength: 6 }), async (all) => {
      const want = new Map<string, Map<string, string>>();
      for (const { typeUrl, resources, removedResources } of all) {
        const held = want.get(typeUrl) ?? new Map<string, string>();
        want.set(typeUrl, held);
        for (const { name, version } of resources) held.set(name, version);
        for (const name of removedResources) held.delete(name);
      }
      const texts = [...want].map(([type, held]) => [type, [...held].map((entry) => entry.join(' '))] as const);
      const sorted = (left: Iterable<readonly [string, readonly string[]]>) =>
        new Map([...left].map(([type, held]) => [type, held.toSorted()] as const));
      assert.deepEqual(sorted(await leftOf(all)), sorted(texts));
    }),
  );
});

test('a large response is read in many turns of the event loop, and given out in several pieces', async () => {
  const resources = Array.from({ length: 20_000 }, (_, i) => ({ name: `${'n'.repeat(100)}-${i}`, version: '1' }));
  const bytes = encoded({ typeUrl: 'workloads', resources, removedResources: [] });
  const alive = new AliveResources();
  let turns = 0;
  let isOver = false;
  const turn = (): void => {
    turns += 1;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  await alive.take(bytes);
  const pieces = await alive.responses();
  isOver = true;
  // 500 resources and a MiB at a time.
  assert(turns >= 40, `${turns} turns`);
  assert(pieces.length > 1, `${pieces.length} pieces`);
});
