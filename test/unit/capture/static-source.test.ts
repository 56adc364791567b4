import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { staticSource } from '../../../src/capture/static-source.ts';
import { FakeClock } from '../../support/fake-clock.ts';

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

/** What a sink hears, in order; `poll` makes the source look again. */
function listen(t: TestContext, path: string): { heard: string[]; poll: () => string[] } {
  const clock = new FakeClock();
  const heard: string[] = [];
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
    problem: (error) => heard.push(error === undefined ? 'fine' : `problem ${error.code}`),
  });
  t.after(() => source[Symbol.dispose]());
  return {
    heard,
    poll() {
      heard.length = 0;
      clock.advance(10_000);
      return heard;
    },
  };
}

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'culvert-pods-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('a file is told whole at first and by its differences afterwards', (t) => {
  const path = join(directory(t), 'pods.json');
  writeFileSync(path, list('a', 'b'));
  const { heard, poll } = listen(t, path);
  assert.deepEqual(heard, ['fine', 'upsert a', 'upsert b', 'synced']);

  writeFileSync(path, list('b', 'c'));
  assert.deepEqual(poll(), ['fine', 'remove a', 'upsert c']);
  assert.deepEqual(poll(), []);
});

test('a bad, emptied or deleted file changes nothing, and the next good one does', (t) => {
  const path = join(directory(t), 'pods.yaml');
  writeFileSync(path, list('a'));
  const { poll } = listen(t, path);

  for (const damage of ['pods: [', '', 'pods: [{uid: a}]']) {
    writeFileSync(path, damage);
    assert.deepEqual(poll(), ['problem CV-ENROL-SOURCE'], damage);
  }
  rmSync(path);
  assert.deepEqual(poll(), ['problem CV-ENROL-SOURCE']);
  writeFileSync(path, list('a', 'b'));
  assert.deepEqual(poll(), ['fine', 'upsert b']);
});

test('a list that cannot be read at first is not "synced", so nothing is taken for gone', (t) => {
  const path = join(directory(t), 'pods.yaml');
  const { heard, poll } = listen(t, path);
  assert.deepEqual(heard, ['problem CV-ENROL-SOURCE']);

  writeFileSync(path, 'pods: []');
  assert.deepEqual(poll(), ['fine', 'synced']);
});

test('a directory is the sum of its lists; one bad file holds back all, a deleted file takes its pods away', (t) => {
  const path = directory(t);
  writeFileSync(join(path, 'one.yaml'), list('a'));
  writeFileSync(join(path, 'two.json'), list('b'));
  writeFileSync(join(path, '.hidden.yaml'), 'nonsense: [');
  writeFileSync(join(path, 'README'), 'nonsense: [');
  const { heard, poll } = listen(t, path);
  assert.deepEqual(heard, ['fine', 'upsert a', 'upsert b', 'synced']);

  writeFileSync(join(path, 'three.yml'), list('b'));
  assert.deepEqual(poll(), ['problem CV-ENROL-SOURCE']);
  rmSync(join(path, 'three.yml'));
  rmSync(join(path, 'one.yaml'));
  assert.deepEqual(poll(), ['fine', 'remove a']);
});
