import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { staticSource } from '../../../src/capture/static-source.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { until } from '../../support/until.ts';

function list(...uids: string[]): string {
  const pods = uids.map((uid) => ({
    uid,
    name: 'p',
    namespace: 'n',
    serviceAccount: 's',
    netns: `/var/run/netns/${uid}`,
  }));
  return JSON.stringify({ pods });
}

interface Heard {
  /** By a sink, in order. */
  readonly heard: string[];
  /** Each problem in words. */
  readonly problems: string[];
  /** Makes the source look again. */
  readonly look: () => void;
  /** The same, and what is heard of it at once. */
  readonly poll: () => Promise<string[]>;
  readonly stop: () => void;
}

function listen(t: TestContext, path: string): Heard {
  const clock = new FakeClock();
  const heard: string[] = [];
  const problems: string[] = [];
  const source = staticSource({ path, clock }).start({
    upsert: async ({ uid }) => {
      heard.push(`upsert ${uid}`);
      return undefined;
    },
    remove: async (uid) => {
      heard.push(`remove ${uid}`);
    },
    synced: () => heard.push('synced'),
    lost: ({ code }) => heard.push(`lost ${code}`),
    problem: (error) => {
      heard.push(error === undefined ? 'fine' : `problem ${error.code}`);
      if (error !== undefined) problems.push(error.message);
    },
  });
  t.after(() => source[Symbol.dispose]());
  const look = (): void => {
    heard.length = 0;
    clock.advance(10_000);
  };
  return {
    heard,
    problems,
    look,
    async poll() {
      look();
      await nextTurn();
      return heard;
    },
    stop: () => source[Symbol.dispose](),
  };
}

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'culvert-pods-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('a file is told whole at first and by its differences afterwards', async (t) => {
  const path = join(directory(t), 'pods.json');
  writeFileSync(path, list('a', 'b'));
  const { heard, poll } = listen(t, path);
  assert.deepEqual(heard, ['fine', 'upsert a', 'upsert b', 'synced']);

  writeFileSync(path, list('b', 'c'));
  assert.deepEqual(await poll(), ['fine', 'remove a', 'upsert c']);
  assert.deepEqual(await poll(), []);
});

test('a bad, emptied or deleted file changes nothing, and the next good one does', async (t) => {
  const path = join(directory(t), 'pods.yaml');
  writeFileSync(path, list('a'));
  const { poll } = listen(t, path);

  for (const damage of ['pods: [', '', 'pods: [{uid: a}]']) {
    writeFileSync(path, damage);
    assert.deepEqual(await poll(), ['problem CV-ENROL-SOURCE'], damage);
  }
  rmSync(path);
  assert.deepEqual(await poll(), ['problem CV-ENROL-SOURCE']);
  writeFileSync(path, list('a', 'b'));
  assert.deepEqual(await poll(), ['fine', 'upsert b']);
});

test('a list that cannot be read at first is not "synced", so nothing is taken for gone', async (t) => {
  const path = join(directory(t), 'pods.yaml');
  const { heard, poll } = listen(t, path);
  assert.deepEqual(heard, ['problem CV-ENROL-SOURCE']);

  writeFileSync(path, 'pods: []');
  assert.deepEqual(await poll(), ['fine', 'synced']);
});

test('a directory is the sum of its lists; one bad file holds back all, a deleted file takes its pods away', async (t) => {
  const path = directory(t);
  writeFileSync(join(path, 'one.yaml'), list('a'));
  writeFileSync(join(path, 'two.json'), list('b'));
  writeFileSync(join(path, '.hidden.yaml'), 'nonsense: [');
  writeFileSync(join(path, 'README'), 'nonsense: [');
  const { heard, poll } = listen(t, path);
  assert.deepEqual(heard, ['fine', 'upsert a', 'upsert b', 'synced']);

  writeFileSync(join(path, 'three.yml'), list('b'));
  assert.deepEqual(await poll(), ['problem CV-ENROL-SOURCE']);
  rmSync(join(path, 'three.yml'));
  rmSync(join(path, 'one.yaml'));
  assert.deepEqual(await poll(), ['fine', 'remove a']);
});

test('the files of a directory are bounded together, and what was good before stays', async (t) => {
  const path = directory(t);
  const big = `# ${'x'.repeat(2 * 1024 * 1024)}\n${list('a')}`;
  writeFileSync(join(path, 'one.yaml'), big);
  const { heard, poll, problems } = listen(t, path);
  assert.deepEqual(heard, ['fine', 'upsert a', 'synced']);

  writeFileSync(join(path, 'two.yaml'), big.replaceAll('"a"', '"b"'));
  assert.deepEqual(await poll(), ['problem CV-ENROL-SOURCE']);
  assert.equal(
    problems.at(-1),
    `${path}: its files have more than 4194304 bytes together; list the pods of this node only`,
  );
  rmSync(join(path, 'one.yaml'));
  writeFileSync(join(path, 'two.yaml'), list('b'));
  assert.deepEqual(await poll(), ['fine', 'remove a', 'upsert b']);
});

/** So many are read in a thread of their own. */
const MANY = Array.from({ length: 1_000 }, (_, at) => `pod-${at}`);

test('a long list is read beside this thread, and told of as any other', { timeout: 90_000 }, async (t) => {
  const path = join(directory(t), 'pods.json');
  writeFileSync(path, list(...MANY));
  const { heard, look, problems } = listen(t, path);
  assert.equal(heard.length, MANY.length + 2);

  writeFileSync(path, list(...MANY, 'one-more'));
  const made = once(process, 'worker');
  look();
  await made;
  await until('the new list is told', () => heard.length > 0);
  assert.deepEqual(heard, ['fine', 'upsert one-more']);

  writeFileSync(path, `${list(...MANY)} }`);
  look();
  await until('the mistake is told', () => heard.length > 0);
  assert.deepEqual(heard, ['problem CV-ENROL-SOURCE']);
  assert.match(problems.at(-1) ?? '', /pods\.json:1:\d+: /);
});

test('of a long list that is being read when it stops nothing is told', { timeout: 90_000 }, async (t) => {
  const path = join(directory(t), 'pods.json');
  writeFileSync(path, list(...MANY));
  const { heard, look, stop } = listen(t, path);
  writeFileSync(path, list(...MANY, 'one-more'));
  const made = once(process, 'worker');
  look();
  stop();
  const [thread] = (await made) as [Worker];
  await once(thread, 'exit');
  await nextTurn();
  assert.deepEqual(heard, []);
});
