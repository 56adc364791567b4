import assert from 'node:assert/strict';
import { test } from 'node:test';
import { watchDescriptors } from '../../../src/agent/descriptor-watch.ts';
import { MeshError } from '../../../src/base/errors.ts';
import type { LogFields } from '../../../src/base/log.ts';
import { FakeClock } from '../../support/fake-clock.ts';

test('a want of descriptors is said once while it lasts, and again when it comes back, in ten seconds at the soonest', () => {
  const clock = new FakeClock();
  const lines: LogFields[] = [];
  let error: MeshError | undefined;
  const log = { error: (_message: string, fields: LogFields = {}) => lines.push(fields) };
  using _watch = watchDescriptors({ clock, log, shortage: () => error });
  clock.advance(60_000);
  assert.deepEqual(lines, []);
  error = new MeshError('CV-SYS', 'socket failed with EMFILE');
  clock.advance(60_000);
  assert.deepEqual(lines, [{ reason: 'CV-SYS', error: 'socket failed with EMFILE', leftOut: 0 }]);
  const lack = error;
  for (let second = 0; second < 20; second++) {
    error = second % 2 === 0 ? undefined : lack;
    clock.advance(1_000);
  }
  assert(lines.length >= 2 && lines.length <= 4, `${lines.length} lines`);
});
