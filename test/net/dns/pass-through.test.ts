/** What is not a name of the mesh goes to the nameserver and back octet for octet, over both transports. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode } from 'dns-packet';
import fc from 'fast-check';
import { echo, respond, TestNameserver } from '../../support/nameserver.ts';
import { DnsWorld, query } from './dns-world.ts';

const bounded = { timeout: 90_000 };
const TRANSPORTS = ['udp', 'tcp'] as const;

for (const transport of TRANSPORTS) {
  test(
    `any query that is not ours reaches the nameserver as it is over ${transport}, and so does the reply`,
    bounded,
    async () => {
      await using nameserver = await TestNameserver.start();
      await using world = new DnsWorld({ nameservers: [nameserver] });
      const label = fc.uint8Array({ minLength: 1, maxLength: 20 });
      const name = fc.array(label, { minLength: 1, maxLength: 5 });
      const tail = fc.uint8Array({ maxLength: 300 });
      const word = fc.integer({ min: 0, max: 0xffff });
      await fc.assert(
        fc.asyncProperty(name, word, word, word, tail, tail, async (labels, id, type, counts, behind, extra) => {
          // Neither IXFR nor AXFR; any class; RD, AD, CD and the reserved bit as they come.
          if (type === 251 || type === 252) return;
          const header = Buffer.alloc(12);
          header.writeUInt16BE(id);
          header.writeUInt16BE(counts & 0x01f0, 2);
          header.writeUInt16BE(1, 4);
          header.writeUInt16BE(counts, 10);
          const asked = labels.flatMap((octets) => [octets.length, ...octets]);
          const bytes = Buffer.concat([header, Buffer.from([...asked, 0, type >> 8, type & 0xff, 0, 3]), behind]);
          let sent: Uint8Array = bytes;
          nameserver.script = ({ bytes: received }) => {
            sent = respond(received, 0x0400, extra);
            return sent;
          };
          nameserver.received.length = 0;
          const reply = await world.ask(bytes, transport);
          assert.deepEqual(
            nameserver.received.map((got) => [got.transport, got.bytes.equals(bytes)]),
            [[transport, true]],
          );
          assert.ok(reply.equals(sent));
        }),
        { numRuns: 60 },
      );
    },
  );

  test(`letters stay as the client mixed them over ${transport}, in both directions`, bounded, async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver] });
    const asked = query('wWw.ExAmPlE.cOm');
    const reply = await world.ask(asked, transport);
    assert.deepEqual(nameserver.received[0]?.bytes, asked);
    assert.deepEqual(reply, Buffer.from(respond(asked)));
  });

  test(`other record types of a service of the mesh go to the nameserver over ${transport}`, bounded, async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver] });
    for (const type of ['NS', 'MX', 'TXT', 'SRV', 'PTR', 'SOA'] as const) {
      const asked = query('web.default.svc.cluster.local', type);
      await world.ask(asked, transport);
      assert.deepEqual(nameserver.received.at(-1)?.bytes, asked);
    }
  });
}

for (const [name, rcode] of [
  ['NXDOMAIN', 3],
  ['SERVFAIL', 2],
  ['REFUSED', 5],
  ['FORMERR', 1],
  ['a code of tomorrow', 11],
] as const) {
  test(`${name} of the nameserver is the reply, and is counted as its failure`, bounded, async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver], settings: { attempts: 1 } });
    nameserver.script = ({ bytes }) => respond(bytes, rcode, Buffer.from('and more'));
    const asked = query('unknown.example');
    assert.deepEqual(await world.ask(asked), Buffer.from(respond(asked, rcode, Buffer.from('and more'))));
    assert.equal(await world.metric('istio_dns_upstream_failures_total', { request_query_type: 'a' }), 1);
    assert.equal(await world.metric('culvert_dns_refusals_total'), 0);
  });
}

test('a name without records is the reply, and is counted as a failure of the nameserver', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  nameserver.script = echo;
  await world.ask(query('empty.example'));
  assert.equal(await world.metric('istio_dns_upstream_failures_total'), 1);
  assert.deepEqual(world.reports[0]?.outcome.kind, 'forwarded');
});

test('the truncation bit goes to the client, and its second try over TCP gets the whole', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  const whole = Buffer.alloc(20_000, 7);
  nameserver.script = ({ bytes, transport }) =>
    transport === 'udp' ? respond(bytes, 0x0200) : respond(bytes, 0, whole);
  const asked = query('large.example', 'TXT');
  assert.equal(decode(await world.ask(asked, 'udp')).flag_tc, true);
  assert.deepEqual(await world.ask(asked, 'tcp'), Buffer.from(respond(asked, 0, whole)));
  assert.deepEqual(
    nameserver.received.map(({ transport }) => transport),
    ['udp', 'tcp'],
  );
});

test('an answer of 4 KiB with EDNS passes over UDP', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  const opt = { type: 'OPT', name: '.', udpPayloadSize: 4_096, extendedRcode: 0, ednsVersion: 0, flags: 0 } as const;
  const asked = encode({
    type: 'query',
    id: 9,
    questions: [{ name: 'large.example', type: 'TXT' }],
    additionals: [{ ...opt, flag_do: false, options: [] }],
  });
  nameserver.script = ({ bytes }) => respond(bytes, 0, Buffer.alloc(4_096 - bytes.length, 7));
  const reply = await world.ask(asked);
  assert.equal(reply.length, 4_096);
  assert.deepEqual(reply, Buffer.from(respond(asked, 0, Buffer.alloc(4_096 - asked.length, 7))));
});

test('a query and a reply of 64 KiB pass over TCP', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  const asked = Buffer.concat([query('large.example'), Buffer.alloc(65_535 - query('large.example').length, 1)]);
  const reply = await world.ask(asked, 'tcp');
  assert.equal(asked.length, 65_535);
  assert.deepEqual(reply, Buffer.from(respond(asked)));
});
