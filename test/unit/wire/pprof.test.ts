import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodePprof, type PprofProfile } from '../../../src/wire/pprof.ts';

/** A reader of the protobuf wire format that knows nothing of the writer. */
function decode(bytes: Uint8Array): Map<number, (bigint | Uint8Array)[]> {
  const fields = new Map<number, (bigint | Uint8Array)[]>();
  for (let at = 0; at < bytes.length; ) {
    const [key, afterKey] = varint(bytes, at);
    const [value, afterValue] = varint(bytes, afterKey);
    const field = Number(key >> 3n);
    const isBytes = (key & 7n) === 2n;
    const end = isBytes ? afterValue + Number(value) : afterValue;
    assert(end <= bytes.length, 'a field ends inside the message');
    fields.set(field, [...(fields.get(field) ?? []), isBytes ? bytes.subarray(afterValue, end) : value]);
    at = end;
  }
  return fields;
}

function varint(bytes: Uint8Array, start: number): [bigint, number] {
  let value = 0n;
  let at = start;
  for (let shift = 0n; ; shift += 7n) {
    const byte = bytes[at++];
    assert(byte !== undefined, 'a varint ends inside the message');
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return [value, at];
  }
}

function packed(bytes: Uint8Array): number[] {
  const values: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const [value, next] = varint(bytes, at);
    values.push(Number(value));
    at = next;
  }
  return values;
}

function messages(fields: Map<number, (bigint | Uint8Array)[]>, field: number) {
  return (fields.get(field) ?? []).map((value) => decode(value as Uint8Array));
}

const number = (fields: Map<number, (bigint | Uint8Array)[]>, field: number) => Number(fields.get(field)?.[0] ?? 0);

/** The profile as a reader of the format sees it. */
function read(bytes: Uint8Array): PprofProfile {
  const top = decode(bytes);
  const strings = (top.get(6) ?? []).map((value) => new TextDecoder().decode(value as Uint8Array));
  const text = (index: number) => strings[index] ?? assert.fail(`string ${index}`);
  const type = (fields: ReturnType<typeof decode>) => ({
    type: text(number(fields, 1)),
    unit: text(number(fields, 2)),
  });
  const functions = new Map(messages(top, 5).map((fields) => [number(fields, 1), fields]));
  const locations = messages(top, 4).map((fields) => {
    const [line] = messages(fields, 4);
    assert(line !== undefined);
    const called = functions.get(number(line, 1));
    assert(called !== undefined);
    return { name: text(number(called, 2)), file: text(number(called, 4)), line: number(line, 2) };
  });
  const [periodType] = messages(top, 11);
  assert(periodType !== undefined);
  assert.equal(strings[0], '');
  return {
    sampleTypes: messages(top, 1).map(type),
    frames: locations,
    samples: messages(top, 2).map((sample) => ({
      stack: packed((sample.get(1)?.[0] ?? new Uint8Array()) as Uint8Array).map((id) => id - 1),
      values: packed((sample.get(2)?.[0] ?? new Uint8Array()) as Uint8Array),
    })),
    periodType: type(periodType),
    period: number(top, 12),
    startMs: Number(((top.get(9)?.[0] as bigint | undefined) ?? 0n) / 1_000_000n),
    durationMs: Number(((top.get(10)?.[0] as bigint | undefined) ?? 0n) / 1_000_000n),
  };
}

const whole = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const name = fc.string({ unit: 'grapheme', maxLength: 20 });
const valueType = fc.record({ type: name, unit: name });
const profile = fc
  .array(fc.record({ name, file: name, line: fc.integer({ min: 0, max: 1_000_000 }) }), { minLength: 1, maxLength: 20 })
  .chain((frames) =>
    fc.record({
      sampleTypes: fc.array(valueType, { maxLength: 3 }),
      frames: fc.constant(frames),
      samples: fc.array(
        fc.record({
          stack: fc.array(fc.nat(frames.length - 1), { maxLength: 50 }),
          values: fc.array(whole, { maxLength: 3 }),
        }),
        { maxLength: 20 },
      ),
      periodType: valueType,
      period: whole,
      startMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
      durationMs: fc.integer({ min: 0, max: 300_000 }),
    }),
  );

test('a profile reads back as it was written, whatever is in it', () => {
  fc.assert(fc.property(profile, (written) => assert.deepEqual(read(encodePprof(written)), structuredClone(written))));
});

test('equal strings are stored once', () => {
  const frame = { name: 'same', file: 'same', line: 1 };
  const types = { type: 'same', unit: 'same' };
  const bytes = encodePprof({
    sampleTypes: [types],
    frames: [frame, frame],
    samples: [],
    periodType: types,
    period: 1,
    startMs: 0,
    durationMs: 0,
  });
  assert.equal(decode(bytes).get(6)?.length, 2);
});
