/** What clients can do to the DNS proxy of their pod: ask well, ask badly, ask much. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { decode } from 'dns-packet';
import fc from 'fast-check';
import { EMPTY_MESH } from '../../../src/model/mesh-index.ts';
import { dnsFrame } from '../../../src/wire/dns-frames.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { respond, TestNameserver } from '../../support/nameserver.ts';
import { until } from '../../support/until.ts';
import { DnsWorld, messagesOf, query } from './dns-world.ts';

const bounded = { timeout: 90_000 };
const TRANSPORTS = ['udp', 'tcp'] as const;
const [FORMERR, SERVFAIL, NOTIMP] = [1, 2, 4] as const;

function rcodeOf(reply: Buffer): number {
  return reply.readUInt16BE(2) & 0xf;
}

/** `query` with other flags or counts. */
function altered(at: number, value: number): Buffer {
  const bytes = query('web');
  bytes.writeUInt16BE(value, at);
  return bytes;
}

for (const transport of TRANSPORTS) {
  test(`a service of the mesh is answered over ${transport}, and no nameserver hears of it`, bounded, async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver] });
    const packet = decode(await world.ask(query('web.default.svc.cluster.local', 'A', 77), transport));
    assert.deepEqual([packet.id, packet.flag_aa, packet.flag_ra, packet.flag_tc], [77, true, true, false]);
    const answers = packet.answers?.map((answer) => ('data' in answer ? [answer.name, answer.ttl, answer.data] : []));
    assert.deepEqual(answers?.toSorted(), [
      ['web.default.svc.cluster.local', 30, '10.96.0.1'],
      ['web.default.svc.cluster.local', 30, '10.96.0.2'],
    ]);
    assert.equal(nameserver.received.length, 0);
    assert.ok(world.share.busyMs > 0, 'nobody is charged for it');
    const labels = { request_query_type: 'a', request_protocol: transport, source_canonical_service: 'client-app' };
    assert.equal(await world.metric('istio_dns_requests_total', labels), 1);
    assert.equal(await world.metric('istio_dns_upstream_requests_total'), 0);
  });

  for (const [claim, bytes, rcode] of [
    ['two questions', altered(4, 2), FORMERR],
    ['no question', altered(4, 0), FORMERR],
    ['a name that is cut', query('web').subarray(0, 14), FORMERR],
    [
      'a name that points at itself',
      Buffer.concat([query('web').subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]),
      FORMERR,
    ],
    ['a broken record behind a name of the mesh', altered(10, 1), FORMERR],
    ['a status query', altered(2, 2 << 11), NOTIMP],
    ['a notify', altered(2, 4 << 11), NOTIMP],
    ['an update', altered(2, 5 << 11), NOTIMP],
    ['a zone transfer', query('example.com', 'AXFR'), NOTIMP],
    ['an incremental zone transfer', query('example.com', 'IXFR'), NOTIMP],
  ] as const) {
    test(`${claim} gets ${rcode === FORMERR ? 'FORMERR' : 'NOTIMP'} over ${transport}`, bounded, async () => {
      await using nameserver = await TestNameserver.start();
      await using world = new DnsWorld({ nameservers: [nameserver] });
      const reply = await world.ask(bytes, transport);
      assert.equal(rcodeOf(reply), rcode);
      assert.equal(reply.readUInt16BE(0), 0x1234);
      assert.equal(nameserver.received.length, 0);
      const reason = rcode === FORMERR ? 'CV-WIRE-MALFORMED' : 'CV-DNS-UNSUPPORTED';
      assert.equal(await world.metric('culvert_dns_refusals_total', { reason }), 1);
    });
  }
}

test('256 addresses are cut to what the client takes over UDP, and complete over TCP', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  const cut = decode(await world.ask(query('large'), 'udp'));
  const whole = decode(await world.ask(query('large'), 'tcp'));
  assert.deepEqual([cut.flag_tc, whole.flag_tc, whole.answers?.length], [true, false, 256]);
  assert.equal(cut.answers?.length, Math.floor((512 - query('large').length) / 16));
});

test('garbage and responses get no answer over UDP, and the next query does', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  const client = await world.udp();
  const replies: Buffer[] = [];
  client.on('message', (reply: Buffer) => replies.push(reply));
  // A response that was answered would be answered again: for ever, when its sender is made up to be the proxy itself.
  client.send(respond(query('web', 'A', 1)));
  client.send(Buffer.alloc(11));
  client.send(Buffer.alloc(0));
  await until('three are reported', () => world.reports.length >= 3);
  client.send(query('web', 'A', 2));
  await once(client, 'message');
  assert.deepEqual(
    replies.map((reply) => reply.readUInt16BE(0)),
    [2],
  );
});

test('any bytes do no harm over UDP', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  const client = await world.udp();
  const sample = fc.sample(fc.uint8Array({ maxLength: 200 }), { numRuns: 500, seed: 1 });
  for (const bytes of sample) {
    const seen = world.reports.length;
    client.send(bytes);
    await until('it is reported', () => world.reports.length > seen);
  }
  assert.equal(decode(await world.ask(query('web'))).answers?.length, 2);
  assert.ok(world.reports.every(({ outcome }) => !('refusal' in outcome) || outcome.refusal.code !== 'CV-BUG'));
});

test('any bytes do no harm over TCP, whatever message they cut', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  for (const bytes of fc.sample(fc.uint8Array({ maxLength: 300 }), { numRuns: 100, seed: 1 })) {
    const client = await world.tcp();
    client.end(bytes);
    await messagesOf(client);
  }
  assert.equal(decode(await world.ask(query('web'), 'tcp')).answers?.length, 2);
  assert.ok(world.reports.every(({ outcome }) => !('refusal' in outcome) || outcome.refusal.code !== 'CV-BUG'));
});

test(
  'many queries sent at once on one connection are all answered, also after the client has ended',
  bounded,
  async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver] });
    const client = await world.tcp();
    const queries = Array.from({ length: 300 }, (_, id) => query(id % 2 === 0 ? 'web' : 'a.example', 'A', id));
    client.end(Buffer.concat(queries.map(dnsFrame)));
    const ids = (await messagesOf(client)).map((reply) => reply.readUInt16BE(0));
    assert.deepEqual(
      ids.toSorted((a, b) => a - b),
      Array.from(queries.keys()),
    );
  },
);

test('on one connection 32 queries are in progress at most, and a fast one passes a slow one', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  nameserver.script = () => undefined;
  const client = await world.tcp();
  const slow = Array.from({ length: 31 }, (_, id) => query('slow.example', 'A', id));
  client.write(Buffer.concat([...slow, query('web', 'A', 100), ...slow].map(dnsFrame)));
  const replies = messagesOf(client);
  await nameserver.query(() => true, 32);
  // The reply of `web` made room for one more, and nothing makes more: 32 wait for the nameserver.
  assert.equal(world.reports.length, 1);
  assert.equal(nameserver.received.length, 32);
  nameserver.script = ({ bytes }) => respond(bytes);
  for (const { bytes, send } of nameserver.received.slice()) send(respond(bytes));
  client.end();
  const ids = (await replies).map((reply) => reply.readUInt16BE(0));
  assert.equal(ids[0], 100);
  assert.equal(ids.length, 63);
});

test('a connection without a whole query for 5 s is closed, one that waits for an answer is not', bounded, async () => {
  const clock = new FakeClock();
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver], clock, settings: { timeoutMs: 60_000 } });
  nameserver.script = () => undefined;
  const [trickling, waiting] = [await world.tcp(), await world.tcp()];
  trickling.write(dnsFrame(query('web')).subarray(0, 5));
  waiting.end(dnsFrame(query('slow.example')));
  const { bytes, send } = await nameserver.query();
  const closed = messagesOf(trickling);
  clock.advance(5_000);
  assert.deepEqual(await closed, []);
  clock.advance(5_000);
  send(respond(bytes));
  assert.equal((await messagesOf(waiting)).length, 1);
});

test(
  'over the limit new queries get SERVFAIL at once, and are answered when there is room again',
  bounded,
  async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver], settings: { maxQueries: 2 } });
    nameserver.script = () => undefined;
    const held = [world.ask(query('a.example')), world.ask(query('b.example'))];
    await nameserver.query(() => true, 2);
    for (const transport of TRANSPORTS) assert.equal(rcodeOf(await world.ask(query('web'), transport)), SERVFAIL);
    assert.equal(await world.metric('culvert_dns_refusals_total', { reason: 'CV-LIMIT' }), 2);
    for (const { bytes, send } of nameserver.received) send(respond(bytes));
    await Promise.all(held);
    assert.equal(rcodeOf(await world.ask(query('web'))), 0);
  },
);

test('over the limit new connections are closed', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver], settings: { maxConnections: 1 } });
  const first = await world.tcp();
  first.write(dnsFrame(query('web')));
  await once(first, 'data');
  assert.deepEqual(await messagesOf(await world.tcp()), []);
  assert.equal(await world.metric('culvert_dns_refusals_total', { reason: 'CV-LIMIT' }), 1);
  first.write(dnsFrame(query('web')));
  await once(first, 'data');
});

test(
  'a pod nobody described gets SERVFAIL after 5 s, counted as unknown, and no nameserver is asked',
  bounded,
  async () => {
    const clock = new FakeClock();
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver], clock, mesh: EMPTY_MESH });
    const client = await world.udp();
    const reply = once(client, 'message') as Promise<[Buffer]>;
    client.send(query('a.example'));
    // Time passes once the proxy has the query, and until it has given up.
    for (; world.reports.length === 0; await nextTurn()) clock.advance(1_000);
    assert.equal(rcodeOf((await reply)[0]), SERVFAIL);
    const labels = {
      request_query_type: 'a',
      source_canonical_service: 'unknown',
      source_canonical_revision: 'unknown',
    };
    assert.equal(await world.metric('istio_dns_requests_total', labels), 1);
    assert.equal(await world.metric('culvert_dns_refusals_total', { reason: 'CV-WORKLOAD-UNKNOWN' }), 1);
    assert.equal(nameserver.received.length, 0);
  },
);

test('a stopped proxy leaves no socket open, whatever was in progress', bounded, async () => {
  const open = (): number => readdirSync('/proc/self/fd').length;
  await using nameserver = await TestNameserver.start();
  nameserver.script = () => undefined;
  const before = open();
  {
    await using world = new DnsWorld({ nameservers: [nameserver] });
    const [udp, tcp, idle] = [await world.udp(), await world.tcp(), await world.tcp()];
    udp.send(query('a.example'));
    tcp.write(dnsFrame(query('b.example')));
    await nameserver.query(() => true, 2);
    world.stop();
    await Promise.all([messagesOf(tcp), messagesOf(idle), world.idle]);
  }
  // Closing takes a turn or two.
  await until('no descriptor is left open', () => open() <= before);
});
