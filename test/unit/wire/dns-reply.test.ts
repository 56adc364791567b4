import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode, TRUNCATED_RESPONSE } from 'dns-packet';
import fc from 'fast-check';
import { type DnsHeader, type Edns, readHeader, readQuestion } from '../../../src/wire/dns-query.ts';
import { type DnsAnswer, encodeAnswer, encodeStatus, RCODE } from '../../../src/wire/dns-reply.ts';

const AA = 0x0400;
const RD = 0x0100;
const RA = 0x0080;
const CD = 0x0010;

const ASKED = 'Web.ns1.SVC.cluster.local';
const QUERY = encode({ type: 'query', id: 0xbeef, flags: RD | CD, questions: [{ name: ASKED, type: 'A' }] });

function headerOf(query: Uint8Array): DnsHeader {
  const header = readHeader(query);
  assert.ok(header !== undefined);
  return header;
}

function reply(answer: Partial<DnsAnswer>, transport: 'udp' | 'tcp' = 'udp', edns?: Edns, query: Uint8Array = QUERY) {
  const full = { addresses: [], ttlSeconds: 30, ...answer };
  const bytes = encodeAnswer(headerOf(query), readQuestion(query).bytes, full, { edns, transport });
  return { bytes, packet: decode(Buffer.from(bytes)) };
}

function statusOf({ flags = 0 }: { readonly flags?: number | undefined }): number {
  return flags & 0xf;
}

function edns(payloadBytes: number): Edns {
  return { payloadBytes, version: 0, isDnssecOk: false };
}

function ipv4s(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `10.0.${i >> 8}.${i & 0xff}`);
}

test('an answer echoes id, question, RD and CD, is authoritative and offers recursion', () => {
  const { packet } = reply({ addresses: ['10.0.0.1', '10.0.0.2'] });
  assert.equal(packet.id, 0xbeef);
  assert.equal(packet.type, 'response');
  assert.equal(packet.flags, AA | RD | RA | CD);
  assert.deepEqual(packet.questions, [{ name: ASKED, type: 'A', class: 'IN' }]);
  const record = { name: ASKED, type: 'A', ttl: 30, class: 'IN', flush: false };
  assert.deepEqual(packet.answers, [
    { ...record, data: '10.0.0.1' },
    { ...record, data: '10.0.0.2' },
  ]);
});

test('behind a CNAME the addresses belong to the name it leads to', () => {
  const { packet } = reply({ cname: 'Web.ns1', addresses: ['fd00::1'] });
  assert.deepEqual(
    packet.answers?.map((answer) => [answer.name, answer.type, 'data' in answer ? answer.data : undefined]),
    [
      [ASKED, 'CNAME', 'Web.ns1'],
      ['Web.ns1', 'AAAA', 'fd00::1'],
    ],
  );
});

test('a name without addresses exists: no error, no record', () => {
  const { packet } = reply({});
  assert.deepEqual([statusOf(packet), packet.answers], [RCODE.noError, []]);
});

test('a reply has EDNS exactly when the query has it, with at least 512 octets', () => {
  const isOpt = ({ packet }: ReturnType<typeof reply>) => packet.additionals?.map(({ type }) => type);
  assert.deepEqual(isOpt(reply({})), []);
  const { packet } = reply({}, 'udp', { payloadBytes: 100, version: 3, isDnssecOk: true });
  assert.deepEqual(packet.additionals, [
    {
      name: '.',
      type: 'OPT',
      udpPayloadSize: 512,
      extendedRcode: 0,
      ednsVersion: 3,
      flags: 0x8000,
      flag_do: true,
      options: [],
    },
  ]);
});

test('a large answer is cut over UDP at what the client takes, and whole over TCP', () => {
  const short = encode({ type: 'query', questions: [{ name: 'web.ns1', type: 'A' }] });
  const cut = reply({ addresses: ipv4s(256) }, 'udp', edns(1_232), short).packet;
  const whole = reply({ addresses: ipv4s(256) }, 'tcp', edns(1_232), short).packet;
  assert.equal(cut.answers?.length, 74);
  assert.equal((cut.flags ?? 0) & TRUNCATED_RESPONSE, TRUNCATED_RESPONSE);
  assert.equal(whole.answers?.length, 256);
  assert.equal((whole.flags ?? 0) & TRUNCATED_RESPONSE, 0);
});

test('without EDNS a UDP answer ends at 512 octets', () => {
  const { bytes, packet } = reply({ addresses: ipv4s(100) });
  assert.ok(bytes.length <= 512);
  assert.equal((packet.flags ?? 0) & TRUNCATED_RESPONSE, TRUNCATED_RESPONSE);
});

test('any answer fits its limit, is cut only when it must be, and another decoder reads it', () => {
  const payload = fc.option(fc.integer({ min: 0, max: 65_535 }), { nil: undefined });
  const transport = fc.constantFrom('udp', 'tcp');
  const cname = fc.option(fc.constant('Web.ns1'), { nil: undefined });
  fc.assert(
    fc.property(fc.nat(5_000), payload, transport, cname, (count, size, over, alias) => {
      const { bytes, packet } = reply(
        { addresses: ipv4s(count), cname: alias },
        over,
        (size && edns(size)) || undefined,
      );
      const limit = over === 'tcp' ? 65_535 : Math.max(size ?? 0, 512);
      const got = (packet.answers?.length ?? 0) - (alias === undefined ? 0 : 1);
      assert.ok(bytes.length <= limit);
      assert.equal(((packet.flags ?? 0) & TRUNCATED_RESPONSE) !== 0, over === 'udp' && got < count);
      assert.ok(got === count || bytes.length + 16 > limit);
    }),
    { numRuns: 300 },
  );
});

test('a status has the question when that could be read, and nothing else', () => {
  const question = readQuestion(QUERY).bytes;
  const refused = decode(Buffer.from(encodeStatus(headerOf(QUERY), RCODE.servFail, question)));
  assert.deepEqual([refused.id, refused.flags], [0xbeef, RD | RA | CD | RCODE.servFail]);
  assert.deepEqual(refused.questions, [{ name: ASKED, type: 'A', class: 'IN' }]);
  const unread = decode(Buffer.from(encodeStatus(headerOf(QUERY), RCODE.formErr)));
  assert.deepEqual([statusOf(unread), unread.questions], [RCODE.formErr, []]);
});
