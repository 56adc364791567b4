/** `istioctl bug-report` filters and counts our lines: its parser, rebuilt, on what we write. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { outbound, trafficFixture } from './traffic-fixture.ts';

const LEVELS = new Set(['fatal', 'error', 'warn', 'info', 'debug', 'trace']);
const RFC3339_NANO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;

interface Parsed {
  readonly time: number;
  /** Statistics are by level, in lower case. */
  readonly level: string;
}

/** `undefined`: the line would escape the time filter and the statistics. */
function bugReport(line: string): Parsed | undefined {
  const [time = '', level = '', ...rest] = line.split('\t');
  if (rest.length < 1 || !RFC3339_NANO.test(time) || !LEVELS.has(level)) return undefined;
  return { time: Date.parse(time), level };
}

test('access-log lines of every outcome are read, with their level', () => {
  const { traffic, lines } = trafficFixture({ filter: 'debug' });
  traffic.open(outbound).close();
  traffic.open({ ...outbound, id: 'c-2' }).close({ code: 'CV-POLICY-DENY', text: 'denied\tby\nx' });
  traffic.refused({
    direction: 'outbound',
    podUid: 'p',
    src: { ip: '10.0.0.1', port: 1 },
    dst: { ip: '10.0.0.2', port: 2 },
    refusal: { code: 'CV-SELF-CALL', text: 'attempted recursive call to ourselves' },
  });
  assert.deepEqual(
    lines.map((line) => bugReport(line)?.level),
    ['debug', 'info', 'debug', 'error', 'warn'],
  );
});

/** Any code points, lone surrogates among them. */
const anyText = fc.string({ unit: fc.nat({ max: 0x10ffff }).map((point) => String.fromCodePoint(point)) });

test('any message and field at all leave one line that is read, and its time is right', () => {
  let lines: string[] = [];
  const clock = new FakeClock();
  const log = rootLogger({
    sink: { write: (line: string) => void lines.push(line) },
    clock,
    format: 'text',
    filter: 'trace',
  }).scope('xds');
  fc.assert(
    fc.property(
      fc.constantFrom('error', 'warn', 'info', 'debug', 'trace'),
      anyText,
      anyText,
      anyText,
      (level, message, key, value) => {
        lines = [];
        log[level]?.(message, { [key]: value });
        assert.equal(lines.length, 1);
        assert.deepEqual(bugReport(lines[0] ?? ''), { time: clock.wallMs(), level });
      },
    ),
  );
});
