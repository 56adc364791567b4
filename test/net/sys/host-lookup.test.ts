import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Answer, decode } from 'dns-packet';
import { type HostRecord, hostLookup } from '../../../src/sys/host-lookup.ts';
import { answering, type RecordsReply, TestNameserver } from '../../support/nameserver.ts';

const NXDOMAIN: RecordsReply = { rcode: 3 };
const SERVFAIL: RecordsReply = { rcode: 2 };

async function nameserver(replies: Readonly<Record<string, RecordsReply>>): Promise<TestNameserver> {
  const server = await TestNameserver.start();
  server.script = answering((type) => replies[type]);
  return server;
}

function lookup({ address }: TestNameserver, isIpv6Enabled = true): Promise<readonly HostRecord[]> {
  return hostLookup({ isIpv6Enabled, servers: [address] })(NAME);
}

const NAME = 'db.example.com';
const a = (data: string, ttl: number): Answer => ({ type: 'A', name: NAME, data, ttl });
const aaaa = (data: string, ttl: number): Answer => ({ type: 'AAAA', name: NAME, data, ttl });

test('both families come with their TTL, in canonical text', async () => {
  await using server = await nameserver({
    A: { answers: [a('192.0.2.1', 30), a('192.0.2.2', 60)] },
    AAAA: { answers: [aaaa('2001:DB8:0:0:0:0:0:1', 5)] },
  });
  const records = await lookup(server);
  assert.deepEqual(records, [
    { ip: '192.0.2.1', ttlMs: 30_000 },
    { ip: '192.0.2.2', ttlMs: 60_000 },
    { ip: '2001:db8::1', ttlMs: 5_000 },
  ]);
});

test('without IPv6 only A is asked for', async () => {
  await using server = await nameserver({ A: { answers: [a('192.0.2.1', 30)] } });
  await lookup(server, false);
  const types = server.received.map(({ bytes }) => decode(bytes).questions?.map(({ type }) => type));
  assert.deepEqual(types, [['A']]);
});

for (const [claim, replies] of [
  ['a name that does not exist has no address, which is no error', { A: NXDOMAIN, AAAA: NXDOMAIN }],
  ['a name without addresses has none, which is no error', { A: {}, AAAA: {} }],
] as const) {
  test(claim, async () => {
    await using server = await nameserver(replies);
    assert.deepEqual(await lookup(server), []);
  });
}

test('one family that is answered is enough', async () => {
  await using server = await nameserver({ A: { answers: [a('192.0.2.1', 30)] }, AAAA: SERVFAIL });
  const records = await lookup(server);
  assert.deepEqual(records, [{ ip: '192.0.2.1', ttlMs: 30_000 }]);
});

test('a failing nameserver is an error that names the host', async () => {
  await using server = await nameserver({ A: SERVFAIL, AAAA: SERVFAIL });
  await assert.rejects(lookup(server), {
    code: 'CV-NO-ADDRESS',
    message: /db\.example\.com.*ESERVFAIL/,
  });
});
