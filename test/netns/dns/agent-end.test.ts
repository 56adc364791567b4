/** DNS of captured pods while their agent ends, orderly or not, and after. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openNetns } from '../../../src/sys/netns.ts';
import { meshForFile } from '../../support/mesh.ts';
import { dig, ResolvConf } from '../../support/mesh-dns.ts';
import { respond, TestNameserver } from '../../support/nameserver.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const resolvConf = new ResolvConf();
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['outside'] },
  env: resolvConf.env,
  flags: ['--drain', '50s'],
  mesh: (made) => {
    resolvConf.write([`nameserver ${made.pod('outside').ip}`, 'options timeout:30 attempts:1']);
    return {};
  },
});

async function nameserver(): Promise<TestNameserver> {
  using netns = openNetns(mesh().pod('outside').inside.path);
  return await TestNameserver.start({ ip: mesh().pod('outside').ip, port: 53 }, netns);
}

test('an agent that ends first answers the queries in progress', privileged, async () => {
  await using upstream = await nameserver();
  upstream.script = () => undefined;
  const agent = mesh().agent('n1');
  const server = `@${upstream.address.ip}`;
  const client = mesh().pod('client');
  const asked = [
    dig(client, server, '+tries=1', '+time=50', 'held.example.', 'A'),
    dig(client, server, '+tcp', '+tries=1', '+time=50', 'held.example.', 'A'),
  ];
  await upstream.query(({ transport }) => transport === 'udp');
  await upstream.query(({ transport }) => transport === 'tcp');
  agent.kill('SIGTERM');
  await agent.line(({ message }) => message === 'draining', 'line that it drains');
  for (const { bytes, send } of upstream.received) send(respond(bytes, 3));
  const dug = await Promise.all(asked);
  assert.deepEqual(
    dug.map(([reply]) => reply?.status),
    ['NXDOMAIN', 'NXDOMAIN'],
  );
  assert.equal(await agent.exited, 0);
});

test(
  'without an agent a captured pod has no DNS, rather than DNS past the mesh; with the next it has',
  privileged,
  async () => {
    await using upstream = await nameserver();
    upstream.script = ({ bytes }) => respond(bytes, 3);
    const server = `@${upstream.address.ip}`;
    const ask = () =>
      dig(mesh().pod('client'), server, '+tries=1', '+time=2', 'a.example.', 'A', '+tcp', 'a.example.', 'A');
    assert.deepEqual(await ask(), []);
    assert.equal(upstream.received.length, 0);
    await mesh().startAgent('n1');
    assert.deepEqual(
      (await ask()).map(({ status }) => status),
      ['NXDOMAIN', 'NXDOMAIN'],
    );
  },
);
