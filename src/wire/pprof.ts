/** Profiles in the pprof format (github.com/google/pprof, `proto/profile.proto`), written by hand: one message, few fields. */

interface ValueType {
  readonly type: string;
  readonly unit: string;
}

export interface PprofFrame {
  readonly name: string;
  readonly file: string;
  /** 1-based; 0 = unknown. */
  readonly line: number;
}

export interface PprofSample {
  /** Indexes into `frames`, leaf first. */
  readonly stack: readonly number[];
  /** One per sample type. Whole numbers, not negative. */
  readonly values: readonly number[];
}

export interface PprofProfile {
  readonly sampleTypes: readonly ValueType[];
  readonly frames: readonly PprofFrame[];
  readonly samples: readonly PprofSample[];
  readonly periodType: ValueType;
  readonly period: number;
  /** Unix time of the start, ms. */
  readonly startMs: number;
  readonly durationMs: number;
}

const NANOS_PER_MS = 1_000_000n;
/** Low bits of a key: LEN carries bytes, VARINT a number. */
const VARINT = 0;
const LEN = 2;

/** The uncompressed message. Functions and locations are one to one: V8 reports no inlining. */
export function encodePprof(profile: PprofProfile): Uint8Array {
  const strings = new StringTable();
  const message = new ProtoWriter();
  for (const type of profile.sampleTypes) message.bytes(1, valueType(type, strings));
  for (const sample of profile.samples) message.bytes(2, encodeSample(sample));
  for (const [index, frame] of profile.frames.entries()) message.bytes(4, encodeLocation(index + 1, frame));
  for (const [index, frame] of profile.frames.entries()) message.bytes(5, encodeFunction(index + 1, frame, strings));
  const periodType = valueType(profile.periodType, strings);
  for (const text of strings.all()) message.bytes(6, utf8(text));
  message.number(9, BigInt(Math.round(profile.startMs)) * NANOS_PER_MS);
  message.number(10, BigInt(Math.round(profile.durationMs)) * NANOS_PER_MS);
  message.bytes(11, periodType);
  message.number(12, profile.period);
  return message.finish();
}

function encodeSample({ stack, values }: PprofSample): Uint8Array {
  const message = new ProtoWriter();
  message.bytes(1, packed(stack.map((frame) => frame + 1)));
  message.bytes(2, packed(values));
  return message.finish();
}

function encodeLocation(id: number, frame: PprofFrame): Uint8Array {
  const line = new ProtoWriter();
  line.number(1, id);
  line.number(2, frame.line);
  const message = new ProtoWriter();
  message.number(1, id);
  message.bytes(4, line.finish());
  return message.finish();
}

function encodeFunction(id: number, frame: PprofFrame, strings: StringTable): Uint8Array {
  const message = new ProtoWriter();
  message.number(1, id);
  message.number(2, strings.indexOf(frame.name));
  message.number(3, strings.indexOf(frame.name));
  message.number(4, strings.indexOf(frame.file));
  return message.finish();
}

function valueType({ type, unit }: ValueType, strings: StringTable): Uint8Array {
  const message = new ProtoWriter();
  message.number(1, strings.indexOf(type));
  message.number(2, strings.indexOf(unit));
  return message.finish();
}

function packed(values: readonly number[]): Uint8Array {
  const writer = new ProtoWriter();
  for (const value of values) writer.varint(value);
  return writer.finish();
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Strings by index; index 0 is the empty string, as the format demands. */
class StringTable {
  readonly #indexes = new Map<string, number>([['', 0]]);

  indexOf(text: string): number {
    const known = this.#indexes.get(text);
    if (known !== undefined) return known;
    this.#indexes.set(text, this.#indexes.size);
    return this.#indexes.size - 1;
  }

  all(): Iterable<string> {
    return this.#indexes.keys();
  }
}

/** Just enough of the protobuf wire format: varints and length-delimited fields. */
class ProtoWriter {
  #buffer = new Uint8Array(64);
  #length = 0;

  number(field: number, value: number | bigint): void {
    if (BigInt(value) === 0n) return;
    this.varint(field * 8 + VARINT);
    this.varint(value);
  }

  bytes(field: number, value: Uint8Array): void {
    this.varint(field * 8 + LEN);
    this.varint(value.length);
    this.#reserve(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
  }

  varint(value: number | bigint): void {
    let rest = BigInt(value);
    this.#reserve(10);
    while (rest > 0x7fn) {
      this.#buffer[this.#length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#buffer[this.#length++] = Number(rest);
  }

  finish(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#length + bytes));
    grown.set(this.#buffer);
    this.#buffer = grown;
  }
}
