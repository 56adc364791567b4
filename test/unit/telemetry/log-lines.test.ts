import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Clock } from '../../../src/base/clock.ts';
import { textLine } from '../../../src/telemetry/log-text.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { anyText } from '../../support/any-text.ts';

/** A clock that stands at 2026-03-02T08:15:30.004211Z. */
const clock: Clock = {
  monotonicMs: () => 0.211,
  wallMs: () => Date.UTC(2026, 2, 2, 8, 15, 30, 4),
  after: () => ({ [Symbol.dispose]: () => undefined }),
};

function capture(format: 'text' | 'json', filter?: string) {
  const lines: string[] = [];
  const root = rootLogger({ sink: { write: (line) => lines.push(line) }, clock: startingAt(clock), format, filter });
  return { lines, root };
}

/** The wall clock knows milliseconds; the microseconds come from the monotonic one since the logger was made. */
function startingAt(at: Clock): Clock {
  let calls = 0;
  return { ...at, monotonicMs: () => (calls++ === 0 ? 0 : at.monotonicMs()) };
}

test('a text line is tab separated, quotes strings and leaves addresses, numbers and booleans bare', () => {
  const { lines, root } = capture('text');
  root.scope('proxy').info?.('listener established', {
    address: '[::]:15008',
    component: 'inbound',
    port: 15_008,
    ok: true,
    absent: undefined,
    'log.file': 'hidden',
  });
  assert.deepEqual(lines, [
    '2026-03-02T08:15:30.004211Z\tinfo\tproxy\tlistener established\taddress=[::]:15008 component="inbound" port=15008 ok=true\n',
  ]);
});

test('a text line without fields still ends with a tab', () => {
  const { lines, root } = capture('text');
  root.scope('xds').warn?.('XDS client complete');
  assert.deepEqual(lines, ['2026-03-02T08:15:30.004211Z\twarn\txds\tXDS client complete\t\n']);
});

test('a JSON line has level, time, scope, message and then the fields in their order', () => {
  const { lines, root } = capture('json');
  root.scope('proxy').error?.('connect failed', { 'dst.addr': '10.0.0.1:80', zebra: 1, alpha: 'a"b', gone: undefined });
  assert.deepEqual(lines, [
    '{"level":"error","time":"2026-03-02T08:15:30.004211Z","scope":"ztunnel::proxy","message":"connect failed",' +
      '"dst.addr":"10.0.0.1:80","zebra":1,"alpha":"a\\"b"}\n',
  ]);
});

test('control characters, quotes and backslashes of a peer are escaped as Rust does', () => {
  const line = lineOf({ host: 'a"b\\c\nd\te\u001b[31m\u202eé' });
  assert.equal(line, 'T\tinfo\taccess\tm\thost="a\\"b\\\\c\\nd\\te\\u{1b}[31m\\u{202e}é"\n');
});

test('an address field that is not an address is quoted, so a peer cannot add fields to the line', () => {
  assert.equal(lineOf({ 'dst.hbone_addr': 'x" evil=1' }), 'T\tinfo\taccess\tm\tdst.hbone_addr="x\\" evil=1"\n');
  assert.equal(lineOf({ 'dst.hbone_addr': '[fd00::1]:80' }), 'T\tinfo\taccess\tm\tdst.hbone_addr=[fd00::1]:80\n');
});

test('a value longer than 2048 characters is cut', () => {
  assert.equal(lineOf({ v: 'x'.repeat(5_000) }), `T\tinfo\taccess\tm\tv="${'x'.repeat(2_048)}…"\n`);
});

test('any strings at all give one line of five columns', () => {
  fc.assert(
    fc.property(anyText(), anyText(), (message, value) => {
      const line = textLine({ level: 'info', time: 'T', scope: 's', message, fields: { 'dst.addr': value, v: value } });
      assert.equal(line.split('\n').length, 2);
      assert.equal(line.split('\t').length, 5);
      assert.equal(/[^\P{Cc}\t\n]|[\u2028\u2029]/u.test(line), false);
    }),
  );
});

test('any strings at all give one line of valid JSON', () => {
  const { lines, root } = capture('json');
  fc.assert(
    fc.property(anyText(), (value) => {
      lines.length = 0;
      root.scope('access').info?.('m', { value });
      assert.equal(lines.length, 1);
      assert.equal(lines[0]?.split('\n').length, 2);
      assert.equal(JSON.parse(lines[0] ?? '').scope, 'access');
    }),
  );
});

function lineOf(fields: Record<string, string>): string {
  return textLine({ level: 'info', time: 'T', scope: 'access', message: 'm', fields });
}
