/** Slow, dead and lying nameservers. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { test } from 'node:test';
import { decode } from 'dns-packet';
import { FakeClock } from '../../support/fake-clock.ts';
import { echo, type Received, respond, TestNameserver } from '../../support/nameserver.ts';
import { DnsWorld, query } from './dns-world.ts';

const bounded = { timeout: 90_000 };
const SERVFAIL = 2;

function rcodeOf(reply: Buffer): number {
  return reply.readUInt16BE(2) & 0xf;
}

function isFor(name: string): (query: Received) => boolean {
  return ({ bytes }) => decode(bytes).questions?.[0]?.name === name;
}

/** A port of loopback where nobody listens. */
async function deadPort(): Promise<{ readonly address: { ip: string; port: number } }> {
  await using nameserver = await TestNameserver.start();
  return { address: { ...nameserver.address } };
}

test('queries that wait for a slow answer hold up no other', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  nameserver.script = (received) => (isFor('slow.example')(received) ? undefined : echo(received));
  const slow = Array.from({ length: 100 }, (_, id) => world.ask(query('slow.example', 'A', id)));
  await nameserver.query(isFor('slow.example'), 100);
  for (let id = 0; id < 50; id++) await world.ask(query('fast.example', 'A', id));
  // A retransmission of a slow one may have come too: every one that came is answered.
  for (const { bytes, send } of nameserver.received.filter(isFor('slow.example'))) send(respond(bytes));
  const ids = (await Promise.all(slow)).map((reply) => reply.readUInt16BE(0));
  assert.deepEqual(ids, Array.from(slow.keys()));
});

for (const transport of ['udp', 'tcp'] as const) {
  test(`nobody listens at the nameserver: SERVFAIL at once over ${transport}`, bounded, async () => {
    await using world = new DnsWorld({ nameservers: [await deadPort()], clock: new FakeClock() });
    const reply = await world.ask(query('unknown.example'), transport);
    assert.equal(rcodeOf(reply), SERVFAIL);
    assert.deepEqual(decode(reply).questions, [{ name: 'unknown.example', type: 'A', class: 'IN' }]);
    assert.equal(await world.metric('culvert_dns_refusals_total', { reason: 'CV-DNS-UNREACHABLE' }), 1);
    assert.equal(await world.metric('istio_dns_upstream_failures_total'), 1);
  });

  test(
    `a silent nameserver: SERVFAIL after the last try over ${transport}, names of the mesh meanwhile`,
    bounded,
    async () => {
      const clock = new FakeClock();
      await using nameserver = await TestNameserver.start();
      await using world = new DnsWorld({ nameservers: [nameserver], clock });
      nameserver.script = () => undefined;
      const asked = world.ask(query('unknown.example'), transport);
      await nameserver.query();
      clock.advance(5_000);
      // Over UDP the question may have been lost, and is asked once more; over TCP it was not.
      if (transport === 'udp') await nameserver.query(() => true, 2);
      assert.equal(rcodeOf(await world.ask(query('web'), transport)), 0);
      clock.advance(5_000);
      assert.equal(rcodeOf(await asked), SERVFAIL);
      assert.equal(nameserver.received.length, transport === 'udp' ? 2 : 1);
      assert.equal(await world.metric('culvert_dns_refusals_total', { reason: 'CV-DNS-TIMEOUT' }), 1);
    },
  );
}

test('an answer that came while the agent had no CPU is an answer', bounded, async () => {
  const clock = new FakeClock();
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver], clock });
  nameserver.script = () => undefined;
  const asked = world.ask(query('a.example'));
  const { bytes, send } = await nameserver.query();
  send(respond(bytes));
  // Nothing is read meanwhile.
  for (let tries = 0; tries < 2; tries++) clock.stall(30_000);
  assert.equal(rcodeOf(await asked), 0);
});

test('a dead nameserver costs a share of the timeout, once: who answered last is asked first', bounded, async () => {
  const clock = new FakeClock();
  await using silent = await TestNameserver.start();
  await using good = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [silent, good], clock });
  silent.script = () => undefined;
  const first = world.ask(query('a.example'));
  await silent.query();
  clock.advance(2_500);
  assert.equal(rcodeOf(await first), 0);
  await world.ask(query('b.example'));
  assert.deepEqual([silent.received.length, good.received.length], [1, 2]);
});

test('a late answer of the first nameserver is taken while the second is asked', bounded, async () => {
  const clock = new FakeClock();
  await using late = await TestNameserver.start();
  await using silent = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [late, silent], clock });
  late.script = silent.script = () => undefined;
  const reply = world.ask(query('a.example'));
  const { bytes, send } = await late.query();
  clock.advance(2_500);
  await silent.query();
  send(respond(bytes, 0, Buffer.from('late')));
  assert.deepEqual(await reply, Buffer.from(respond(bytes, 0, Buffer.from('late'))));
});

test(
  'a nameserver that fails or refuses is passed over, and its word is kept when no other knows better',
  bounded,
  async () => {
    await using failing = await TestNameserver.start();
    await using other = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [failing, other], settings: { attempts: 1 } });
    failing.script = ({ bytes }) => respond(bytes, SERVFAIL);
    const good = query('a.example');
    assert.deepEqual(await world.ask(good), Buffer.from(respond(good)));
    other.script = ({ bytes }) => respond(bytes, 5, Buffer.from('refused'));
    failing.script = ({ bytes }) => respond(bytes, SERVFAIL, Buffer.from('failed'));
    assert.deepEqual(await world.ask(good), Buffer.from(respond(good, SERVFAIL, Buffer.from('failed'))));
  },
);

test('a nameserver where nobody listens is passed over at once', bounded, async () => {
  await using good = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [await deadPort(), good], clock: new FakeClock() });
  for (const transport of ['udp', 'tcp'] as const)
    assert.equal(rcodeOf(await world.ask(query('a.example'), transport)), 0);
});

for (const [claim, forge] of [
  [
    'another id',
    (bytes: Buffer) => respond(Buffer.concat([Buffer.from([bytes[0] ?? 0, (bytes[1] ?? 0) ^ 1]), bytes.subarray(2)])),
  ],
  ['another question', (bytes: Buffer) => respond(query('evil.example', 'A', bytes.readUInt16BE(0)))],
  ['no question and no error', (bytes: Buffer) => respond(Buffer.concat([bytes.subarray(0, 4), Buffer.alloc(8)]))],
  ['the query itself', (bytes: Buffer) => bytes],
  ['less than a header', (bytes: Buffer) => bytes.subarray(0, 5)],
  ['nothing', () => Buffer.alloc(0)],
  [
    'a name that points at itself',
    (bytes: Buffer) => respond(Buffer.concat([bytes.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])])),
  ],
] as const) {
  test(`a datagram with ${claim} is no answer; the right one that follows is`, bounded, async () => {
    await using nameserver = await TestNameserver.start();
    await using world = new DnsWorld({ nameservers: [nameserver] });
    nameserver.script = ({ bytes, send }) => {
      send(forge(bytes));
      return respond(bytes, 0, Buffer.from('right'));
    };
    const asked = query('a.example');
    assert.deepEqual(await world.ask(asked), Buffer.from(respond(asked, 0, Buffer.from('right'))));
  });
}

test('over TCP a reply with another id ends the exchange, and the next server is asked', bounded, async () => {
  await using liar = await TestNameserver.start();
  await using good = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [liar, good], clock: new FakeClock() });
  liar.script = ({ bytes }) => respond(query('a.example', 'A', bytes.readUInt16BE(0) ^ 1));
  const asked = query('a.example');
  assert.deepEqual(await world.ask(asked, 'tcp'), Buffer.from(respond(asked)));
});

test('a datagram from somebody else is no answer, whatever it says', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  nameserver.script = () => undefined;
  const reply = world.ask(query('a.example'));
  const { bytes, send, from } = await nameserver.query();
  const stranger = dgram.createSocket('udp4');
  const forged = respond(bytes, 0, Buffer.from('forged'));
  await new Promise<void>((resolve) => stranger.send(forged, from.port, from.ip, () => resolve()));
  stranger.close();
  send(respond(bytes, 0, Buffer.from('true')));
  assert.deepEqual(await reply, Buffer.from(respond(bytes, 0, Buffer.from('true'))));
});

test('every query has a port of its own', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver] });
  nameserver.script = () => undefined;
  const replies = Array.from({ length: 50 }, () => world.ask(query('same.example')));
  await nameserver.query(() => true, 50);
  const asked = nameserver.received.slice(0, 50);
  assert.equal(new Set(asked.map(({ from }) => from.port)).size, 50);
  for (const { bytes, send } of nameserver.received) send(respond(bytes));
  await Promise.all(replies);
});

test('a nameserver that answers with less than a header over TCP is no nameserver', bounded, async () => {
  await using nameserver = await TestNameserver.start();
  await using world = new DnsWorld({ nameservers: [nameserver], clock: new FakeClock() });
  nameserver.script = () => Buffer.alloc(3);
  assert.equal(rcodeOf(await world.ask(query('a.example'), 'tcp')), SERVFAIL);
  assert.equal(await world.metric('culvert_dns_refusals_total', { reason: 'CV-DNS-UNREACHABLE' }), 1);
});
