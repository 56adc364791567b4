import assert from 'node:assert/strict';
import { openSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { ZdsPods } from '../../../src/capture/zds-pods.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { filesAsNetns, NetnsFiles } from './zds-node.ts';

const UIDS = ['a', 'b', 'c'] as const;
const NAMES = ['one', 'two', 'three', 'four'] as const;

type Step =
  | { readonly kind: 'add'; readonly uid: string; readonly netns: string }
  | { readonly kind: 'keep' | 'del'; readonly uid: string }
  | { readonly kind: 'snapshot-sent' | 'reconnect' };

const plain = { noNullPrototype: true };
const uid = fc.constantFrom(...UIDS);
const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('add' as const), uid, netns: fc.constantFrom(...NAMES) }, plain),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('keep' as const, 'del' as const), uid }, plain) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constantFrom('snapshot-sent' as const, 'reconnect' as const) }, plain),
    },
  ),
  { maxLength: 30 },
);

/** Who ought to be captured where, by the rules of the protocol alone. */
class Model {
  readonly captured = new Map<string, string>();
  #snapshot: Set<string> | undefined = new Set();

  /** False: the protocol does not allow the step now. */
  take(step: Step): boolean {
    switch (step.kind) {
      case 'add':
        this.#snapshot?.add(step.uid);
        this.captured.set(step.uid, step.netns);
        return true;
      case 'keep':
        this.#snapshot?.add(step.uid);
        return this.#snapshot !== undefined;
      case 'del':
        if (this.#snapshot === undefined) this.captured.delete(step.uid);
        this.#snapshot?.delete(step.uid);
        return true;
      case 'snapshot-sent':
        if (this.#snapshot === undefined) return false;
        for (const known of [...this.captured.keys()]) if (!this.#snapshot.has(known)) this.captured.delete(known);
        this.#snapshot = undefined;
        return true;
      case 'reconnect':
        this.#snapshot = new Set();
        return true;
    }
  }
}

async function carryOut(pods: ZdsPods, step: Step, files: NetnsFiles): Promise<void> {
  switch (step.kind) {
    case 'add': {
      const workload = { name: step.uid, namespace: 'demo', serviceAccount: step.uid };
      assert.equal(await pods.add(step.uid, workload, files.open(step.netns)), undefined);
      return;
    }
    case 'keep':
      pods.keep(step.uid);
      return;
    case 'del':
      await pods.del(step.uid);
      return;
    case 'snapshot-sent':
      pods.snapshotSent();
      return;
    case 'reconnect':
      pods.begin();
  }
}

test('after any sequence exactly the right pods are captured, each in its newest namespace, with one descriptor each', async () => {
  using files = new NetnsFiles();
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      const before = readdirSync('/proc/self/fd').length;
      const captured = new Map<string, string>();
      const sink = {
        upsert: async ({ uid: told, netnsPath }: { readonly uid: string; readonly netnsPath: string }) => {
          captured.set(told, files.nameOf(netnsPath));
          return undefined;
        },
        remove: async (told: string) => void captured.delete(told),
      };
      const deps = { sys: filesAsNetns, clock: new FakeClock(), log: silentLogger, sink, onSnapshot: () => {} };
      const model = new Model();
      {
        using pods = new ZdsPods(deps);
        for (const step of sequence) {
          if (model.take(step)) await carryOut(pods, step, files);
          else await assert.rejects(carryOut(pods, step, files), (error) => error instanceof MeshError);
          assert.deepEqual(captured, model.captured);
          assert.equal(pods.size, captured.size);
          assert.equal(readdirSync('/proc/self/fd').length, before + captured.size);
        }
      }
      assert.equal(readdirSync('/proc/self/fd').length, before);
    }),
  );
});

test('a pod that runs is kept when its namespace comes anew with a descriptor of something else', async () => {
  using files = new NetnsFiles();
  const captured = new Set<string>();
  const sink = {
    upsert: async ({ uid: told }: { readonly uid: string }) => {
      captured.add(told);
      return undefined;
    },
    remove: async (told: string) => void captured.delete(told),
  };
  const deps = { sys: filesAsNetns, clock: new FakeClock(), log: silentLogger, sink, onSnapshot: () => {} };
  using pods = new ZdsPods(deps);
  const workload = { name: 'a', namespace: 'demo', serviceAccount: 'a' };
  await pods.add('a', workload, files.open('one'));
  pods.snapshotSent();

  pods.begin();
  const error = await pods.add('a', workload, openSync('/dev/null', 'r'));
  assert.equal(error?.code, 'CV-NETNS');
  pods.snapshotSent();

  assert.deepEqual([...captured], ['a']);
});
