import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { CaptureJournal } from '../../../src/capture/capture-journal.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Sys } from '../../../src/sys/sys.ts';
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

for (const { errno, left } of [
  { errno: 'EMFILE', left: ['pod-1'] },
  { errno: 'ENOENT', left: [] },
]) {
  test(`a pod whose namespace answers ${errno} is ${left.length > 0 ? 'kept' : 'forgotten'}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'culvert-journal-'));
    try {
      const path = join(folder, 'journal.json');
      const deps = { clock: new FakeClock(), log: {} };
      {
        using journal = new CaptureJournal(path, { ...deps, sys: linuxSys });
        using netns = linuxSys.openNetns(POD.netnsPath);
        journal.note(POD, netns);
      }
      const openNetns = (): never => {
        throw new MeshError('CV-NETNS', 'open of the network namespace failed', { errno });
      };
      const sys: Sys = { ...linuxSys, openNetns };
      using journal = new CaptureJournal(path, { ...deps, sys });
      const found = journal.left().map(({ uid }) => uid);
      assert.deepEqual(found, left);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
