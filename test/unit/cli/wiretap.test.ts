/** The evidence of the demo: frames to segments, segments to streams, streams to TLS records. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readTcp, type TcpSegment } from '../../../src/cli/lab/packet.ts';
import { readTlsRecords, Wiretap } from '../../../src/cli/lab/wiretap.ts';

const CLIENT = { ip: '10.244.1.11', port: 40_000 };
const SERVER = { ip: '10.244.2.11', port: 8080 };

/** Ethernet, IPv4 with 4 bytes of options, TCP with 4 bytes of options, `payload`, and padding as on short frames. */
function ipv4Frame(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(14 + 24 + 24 + payload.length + 6);
  const view = new DataView(frame.buffer);
  view.setUint16(12, 0x0800);
  frame[14] = 0x46;
  view.setUint16(16, 24 + 24 + payload.length);
  frame[23] = 6;
  frame.set([10, 244, 1, 11], 26);
  frame.set([10, 244, 2, 11], 30);
  writeTcp(frame, view, 38, payload);
  return frame;
}

function ipv6Frame(payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(14 + 40 + 24 + payload.length);
  const view = new DataView(frame.buffer);
  view.setUint16(12, 0x86dd);
  frame[14] = 0x60;
  view.setUint16(18, 24 + payload.length);
  frame[20] = 6;
  frame.set([0xfd, 0x24], 22);
  frame[37] = 0x11;
  frame.set([0xfd, 0x24], 38);
  frame[53] = 0x12;
  writeTcp(frame, view, 54, payload);
  return frame;
}

function writeTcp(frame: Uint8Array, view: DataView, at: number, payload: Uint8Array): void {
  view.setUint16(at, CLIENT.port);
  view.setUint16(at + 2, SERVER.port);
  view.setUint32(at + 4, 7);
  frame[at + 12] = 0x60;
  frame[at + 13] = 0x18;
  frame.set(payload, at + 24);
}

function segment(sequence: number, text: string, isSyn = false): TcpSegment {
  return { from: CLIENT, to: SERVER, sequence, isSyn, isReset: false, payload: Buffer.from(text) };
}

function tlsRecord(type: number, length: number): Uint8Array {
  return Uint8Array.from([type, 3, 3, length >> 8, length & 0xff, ...Buffer.alloc(length, 0xaa)]);
}

test('an IPv4 frame gives the payload without header options and padding', () => {
  const read = readTcp(ipv4Frame(Buffer.from('GET /')));
  assert.deepEqual(read, { ...segment(7, 'GET /'), payload: Uint8Array.from(Buffer.from('GET /')) });
});

test('an IPv6 frame gives its addresses in canonical form', () => {
  const read = readTcp(ipv6Frame(Buffer.from('x')));
  assert.deepEqual([read?.from.ip, read?.to.ip, read?.payload.length], ['fd24::11', 'fd24::12', 1]);
});

test('any bytes at all give a segment or undefined, never an exception', () => {
  const frames = fc.oneof(
    fc.uint8Array({ maxLength: 120 }),
    fc.tuple(fc.nat(90), fc.nat(255), fc.nat(90)).map(([at, value, cut]) => {
      const frame = ipv4Frame(Buffer.from('hello'));
      frame[at % frame.length] = value;
      return frame.subarray(0, cut);
    }),
  );
  fc.assert(fc.property(frames, (frame) => void readTcp(frame)));
});

test('a stream is put together in sequence order, across the wrap of sequence numbers, repeats once', () => {
  const tap = new Wiretap();
  const first = 2 ** 32 - 3;
  tap.add(segment(first - 1, '', true));
  tap.add(segment(3, 'ghi'));
  tap.add(segment(first, 'abcdef'));
  tap.add(segment(3, 'ghi'));
  assert.deepEqual(
    tap.streams().map((stream) => stream.bytes.toString()),
    ['abcdefghi'],
  );
  assert.equal(tap.findClear('fgh').length, 1);
});

test('a new SYN on the same ports is another stream', () => {
  const tap = new Wiretap();
  for (const text of ['one', 'two']) {
    tap.add(segment(100, '', true));
    tap.add(segment(101, text));
  }
  assert.deepEqual(
    tap.streams().map((stream) => stream.bytes.toString()),
    ['one', 'two'],
  );
});

test('TLS records are counted, also when the last one is cut', () => {
  const bytes = Buffer.concat([tlsRecord(22, 100), tlsRecord(20, 1), tlsRecord(23, 16_000)]);
  assert.deepEqual(readTlsRecords(bytes), { count: 3, bytes: bytes.length });
  assert.equal(readTlsRecords(bytes.subarray(0, -5))?.count, 3);
});

test('clear text is not taken for TLS, not even behind a TLS record', () => {
  const clear = Buffer.from('GET /basket HTTP/1.1\r\n\r\n');
  assert.equal(readTlsRecords(clear), undefined);
  assert.equal(readTlsRecords(Buffer.concat([tlsRecord(23, 10), clear])), undefined);
});
