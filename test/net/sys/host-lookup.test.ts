import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { type Answer, decode, encode, type Packet } from 'dns-packet';
import { hostLookup } from '../../../src/sys/host-lookup.ts';

interface Reply {
  readonly answers?: readonly Answer[];
  /** RCODE, RFC 1035 §4.1.1. */
  readonly rcode?: number;
}

const NXDOMAIN: Reply = { rcode: 3 };
const SERVFAIL: Reply = { rcode: 2 };

/** A nameserver on loopback that answers by type and counts what it was asked. */
async function nameserver(replies: Readonly<Record<string, Reply | undefined>>) {
  const socket = createSocket('udp4');
  const asked: string[] = [];
  socket.on('message', (message, peer) => {
    const query: Packet = decode(message);
    const [question] = query.questions ?? [];
    assert(question !== undefined);
    asked.push(`${question.type} ${question.name}`);
    const reply = replies[question.type];
    if (reply === undefined) return;
    const { answers = [], rcode = 0 } = reply;
    const flags = 0x180 | rcode;
    socket.send(encode({ ...query, type: 'response', flags, answers: [...answers] }), peer.port, peer.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const servers = [`127.0.0.1:${socket.address().port}`];
  return { servers, asked, [Symbol.asyncDispose]: () => new Promise<void>((done) => socket.close(() => done())) };
}

const NAME = 'db.example.com';
const a = (data: string, ttl: number): Answer => ({ type: 'A', name: NAME, data, ttl });
const aaaa = (data: string, ttl: number): Answer => ({ type: 'AAAA', name: NAME, data, ttl });

test('both families come with their TTL, in canonical text', async () => {
  await using server = await nameserver({
    A: { answers: [a('192.0.2.1', 30), a('192.0.2.2', 60)] },
    AAAA: { answers: [aaaa('2001:DB8:0:0:0:0:0:1', 5)] },
  });
  const records = await hostLookup({ isIpv6Enabled: true, servers: server.servers })(NAME);
  assert.deepEqual(records, [
    { ip: '192.0.2.1', ttlMs: 30_000 },
    { ip: '192.0.2.2', ttlMs: 60_000 },
    { ip: '2001:db8::1', ttlMs: 5_000 },
  ]);
});

test('without IPv6 only A is asked for', async () => {
  await using server = await nameserver({ A: { answers: [a('192.0.2.1', 30)] } });
  await hostLookup({ isIpv6Enabled: false, servers: server.servers })(NAME);
  assert.deepEqual(server.asked, [`A ${NAME}`]);
});

for (const [claim, replies] of [
  ['a name that does not exist has no address, which is no error', { A: NXDOMAIN, AAAA: NXDOMAIN }],
  ['a name without addresses has none, which is no error', { A: {}, AAAA: {} }],
] as const) {
  test(claim, async () => {
    await using server = await nameserver(replies);
    assert.deepEqual(await hostLookup({ isIpv6Enabled: true, servers: server.servers })(NAME), []);
  });
}

test('one family that is answered is enough', async () => {
  await using server = await nameserver({ A: { answers: [a('192.0.2.1', 30)] }, AAAA: SERVFAIL });
  const records = await hostLookup({ isIpv6Enabled: true, servers: server.servers })(NAME);
  assert.deepEqual(records, [{ ip: '192.0.2.1', ttlMs: 30_000 }]);
});

test('a failing nameserver is an error that names the host', async () => {
  await using server = await nameserver({ A: SERVFAIL, AAAA: SERVFAIL });
  await assert.rejects(hostLookup({ isIpv6Enabled: true, servers: server.servers })(NAME), {
    code: 'CV-NO-ADDRESS',
    message: /db\.example\.com.*ESERVFAIL/,
  });
});
