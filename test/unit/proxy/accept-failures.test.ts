import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogFields } from '../../../src/base/log.ts';
import { AcceptFailures } from '../../../src/proxy/accept-failures.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const FAILURE = new Error('accept failed with ENFILE');

function failures() {
  const clock = new FakeClock();
  const lines: LogFields[] = [];
  const log = { error: (_message: string, fields: LogFields = {}) => lines.push(fields) };
  return { clock, lines, failing: new AcceptFailures({ clock, log }) };
}

test('a listener that fails each turn of the loop has one line for it', () => {
  const { clock, lines, failing } = failures();
  for (let turn = 0; turn < 10_000; turn++) {
    failing.note(15_008, FAILURE);
    clock.advance(10);
  }
  assert.deepEqual(lines, [{ port: 15_008, error: 'accept failed with ENFILE', leftOut: 0 }]);
});

test('listeners that fail and accept in turn have a line in ten seconds, with what was left out', () => {
  const { clock, lines, failing } = failures();
  for (let turn = 0; turn < 3_000; turn++) {
    failing.note(turn % 2 === 0 ? 15_008 : 15_001, FAILURE);
    failing.reset();
    clock.advance(10);
  }
  assert.deepEqual(
    lines.map(({ leftOut }) => leftOut),
    [0, 999, 999],
  );
});
