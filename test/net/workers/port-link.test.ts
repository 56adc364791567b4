import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { type Calls, type Item, PortLink } from '../../../src/agent/workers/port-link.ts';
import { MeshError } from '../../../src/base/errors.ts';

type Asked = {
  readonly double: (number: number) => Promise<number>;
  readonly fail: (how: 'mesh' | 'defect') => Promise<never>;
  readonly note: (text: string) => void;
  readonly later: (nothing: undefined) => Promise<string>;
};
type None = Record<string, never>;

interface Pair extends Disposable {
  readonly near: PortLink<None, Asked>;
  readonly notes: string[];
  readonly release: (value: string) => void;
  /** Messages that reached the far side. */
  readonly messages: () => number;
}

function linkOver<Mine extends Calls, Theirs extends Calls>(port: MessagePort, mine: Mine): PortLink<Mine, Theirs> {
  const link = new PortLink<Mine, Theirs>((items) => port.postMessage(items), mine);
  port.on('message', (items: readonly Item[]) => link.receive(items));
  return link;
}

function pair(): Pair {
  const { port1, port2 } = new MessageChannel();
  const notes: string[] = [];
  const later = Promise.withResolvers<string>();
  let messages = 0;
  port2.on('message', () => (messages += 1));
  linkOver<Asked, None>(port2, {
    double: async (number) => 2 * number,
    fail: async (how) => {
      if (how === 'mesh') throw new MeshError('CV-LIMIT', 'too many', { limit: 7 });
      throw new TypeError('a defect');
    },
    note: (text) => void notes.push(text),
    later: () => later.promise,
  });
  const near = linkOver<None, Asked>(port1, {});
  return {
    near,
    notes,
    release: later.resolve,
    messages: () => messages,
    [Symbol.dispose]: () => port1.close(),
  };
}

test('calls of one turn travel in one message, and each gets its own answer', async () => {
  using link = pair();
  const answers = await Promise.all([1, 2, 3, 4].map((number) => link.near.call('double', number)));
  assert.deepEqual(answers, [2, 4, 6, 8]);
  assert.equal(link.messages(), 1);
});

test('a failure arrives with its code, its text and its fields', async () => {
  using link = pair();
  await assert.rejects(link.near.call('fail', 'mesh'), (error: MeshError) => {
    assert(error instanceof MeshError);
    assert.deepEqual([error.code, error.message, error.fields], ['CV-LIMIT', 'too many', { limit: 7 }]);
    return true;
  });
});

test('a defect arrives as one, with the stack of where it happened', async () => {
  using link = pair();
  await assert.rejects(link.near.call('fail', 'defect'), (error: MeshError) => {
    assert.equal(error.code, 'CV-BUG');
    assert.match(String(error.stack), /TypeError: a defect[\s\S]*port-link\.test/);
    return true;
  });
});

test('answers come in any order', async () => {
  using link = pair();
  const late = link.near.call('later', undefined);
  assert.equal(await link.near.call('double', 4), 8);
  link.release('now');
  assert.equal(await late, 'now');
});

test('what is told arrives after all that was asked before', async () => {
  using link = pair();
  const asked = link.near.call('double', 1);
  link.near.tell('note', 'after');
  await asked;
  assert.equal(await link.near.call('double', 2), 4);
  assert.deepEqual(link.notes, ['after']);
});

test('whoever waits for an answer goes on before what was told after it is dealt with', async () => {
  const { port1, port2 } = new MessageChannel();
  const seen: string[] = [];
  const asker = linkOver<{ readonly revoke: (id: string) => void }, Asked>(port1, {
    revoke: (id) => void seen.push(`revoked ${id}`),
  });
  const owner: PortLink<Asked, { readonly revoke: (id: string) => void }> = linkOver(port2, {
    double: async (number) => {
      // The answer, and in the same turn the news that undoes it.
      setImmediate(() => owner.tell('revoke', 'c'));
      return number;
    },
    fail: async () => assert.fail(),
    note: () => {},
    later: async () => '',
  });
  const opened = async (): Promise<void> => {
    await asker.call('double', 1);
    // As many steps as a connection takes from its verdict to its registration.
    for (let step = 0; step < 20; step++) await Promise.resolve();
    seen.push('opened c');
  };
  await Promise.all([opened(), once(port1, 'message').then(() => once(port1, 'message'))]);
  port1.close();
  assert.deepEqual(seen, ['opened c', 'revoked c']);
});

test('closing tells everybody who waits, and whoever comes later', async () => {
  using link = pair();
  const waiting = link.near.call('later', undefined);
  const error = new MeshError('CV-WORKER', 'worker-1 ended');
  link.near.close(error);
  await assert.rejects(waiting, error);
  await assert.rejects(link.near.call('double', 1), error);
  link.near.tell('note', 'nobody hears this');
  assert.deepEqual(link.notes, []);
});
