import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { CaptureJournal } from '../../../src/capture/capture-journal.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns, Sys } from '../../../src/sys/sys.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const POD = {
  uid: 'pod-1',
  name: 'web-0',
  namespace: 'shop',
  serviceAccount: 'web',
  netnsPath: '/proc/self/ns/net',
  options: { isIngressMode: false, rerouteInterfaces: [] },
};

test('a journal that could not be written is said once, and written as soon as the disk takes it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-journal-'));
  try {
    const path = join(folder, 'journal.json');
    const clock = new FakeClock();
    const lines: string[] = [];
    const log = { warn: (text: string) => void lines.push(text) };
    // In the way of the draft that takes the place of the file.
    using journal = new CaptureJournal(path, { sys: linuxSys, clock, log });
    mkdirSync(path);
    using netns = linuxSys.openNetns(POD.netnsPath);
    journal.note(POD, netns);
    clock.advance(100);
    journal.note({ ...POD, uid: 'pod-2' }, netns);
    clock.advance(60_000);
    assert.deepEqual(lines, ['journal of captured pods not written, trying again']);
    rmdirSync(path);
    clock.advance(10_000);
    const { pods } = JSON.parse(readFileSync(path, 'utf8'));
    assert.deepEqual(
      pods.map(({ uid }: { readonly uid: string }) => uid),
      ['pod-1', 'pod-2'],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const answering = (errno: string) => (): never => {
  throw new MeshError('CV-NETNS', 'open of the network namespace failed', { errno });
};

/** Where the namespace was is another one, as when the path of a pod is used again. */
function another(): Netns {
  const netns = linuxSys.openNetns(POD.netnsPath);
  const { fd, path, id } = netns;
  return { fd, path, id: { ...id, inode: id.inode + 1n }, [Symbol.dispose]: () => netns[Symbol.dispose]() };
}

for (const { what, openNetns, left } of [
  { what: 'cannot be opened for want of descriptors', openNetns: answering('EMFILE'), left: ['pod-1'] },
  { what: 'is gone', openNetns: answering('ENOENT'), left: [] },
  { what: 'is another one', openNetns: another, left: [] },
]) {
  test(`a pod whose namespace ${what} is ${left.length > 0 ? 'kept' : 'forgotten'}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'culvert-journal-'));
    try {
      const path = join(folder, 'journal.json');
      const deps = { clock: new FakeClock(), log: {} };
      {
        using journal = new CaptureJournal(path, { ...deps, sys: linuxSys });
        using netns = linuxSys.openNetns(POD.netnsPath);
        journal.note(POD, netns);
      }
      const sys: Sys = { ...linuxSys, openNetns };
      using journal = new CaptureJournal(path, { ...deps, sys });
      const found = journal.left().map(({ uid }) => uid);
      assert.deepEqual(found, left);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
