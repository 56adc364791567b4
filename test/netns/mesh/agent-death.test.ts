import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sniffer } from '../../../src/cli/lab/sniffer.ts';
import { readTlsRecords, Wiretap } from '../../../src/cli/lab/wiretap.ts';
import { meshForFile } from '../../support/mesh.ts';
import { ask, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };
const SECRET = 'the-secret-of-the-application';
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] } });

function server(port: number) {
  return { ip: mesh().pod('server').ip, port };
}

/** Everything that passes between the node of the client and the others. */
async function tapWire() {
  const tap = new Wiretap();
  const sniffer = await Sniffer.start(mesh().lab.wire, mesh().lab.node('n1').wirePort, (segment) => tap.add(segment));
  return { tap, sniffer, [Symbol.asyncDispose]: () => sniffer[Symbol.asyncDispose]() };
}

async function refusedBy(from: string, port: number): Promise<string> {
  return dial(mesh(), from, server(port)).then(
    () => 'connected',
    (error: unknown) => String((error as { fields?: { errno?: string } }).fields?.errno),
  );
}

test('between the nodes there is nothing but TLS on port 15008', privileged, async () => {
  using _app = mesh().serve('server', 8001, doubling);
  await using wire = await tapWire();
  assert.equal(await ask(mesh(), 'client', server(8001), SECRET), SECRET + SECRET);
  await wire.sniffer.settle();
  assert.deepEqual(wire.tap.findClear(SECRET), []);
  const streams = wire.tap.streams().filter(({ bytes }) => bytes.length > 0);
  assert.ok(streams.length >= 2);
  for (const { from, to, bytes } of streams) {
    assert.ok(from.port === 15_008 || to.port === 15_008, `a stream from ${from.port} to ${to.port}`);
    assert.ok(readTlsRecords(bytes) !== undefined, 'a stream that is not TLS');
  }
});

for (const [side, node] of [
  ['client', 'n1'],
  ['server', 'n2'],
] as const) {
  test(
    `the ${side}’s agent killed: connections end or are refused, nothing leaves in clear; restarted, they work`,
    privileged,
    async (t) => {
      using _app = mesh().serve('server', 8002, doubling);
      using open = await dial(mesh(), 'client', server(8002));
      await open.exchange('before');
      await using wire = await tapWire();

      mesh().agent(node).kill('SIGKILL');
      assert.equal(await mesh().agent(node).exited, 128);

      await open.ended();
      for (let i = 0; i < 5; i++) {
        if (node === 'n1') assert.equal(await refusedBy('client', 8002), 'ECONNREFUSED');
        else await assertDead('client');
      }
      if (node === 'n2') assert.equal(await refusedBy('outside', 8002), 'ECONNREFUSED');
      await wire.sniffer.settle();
      assert.deepEqual(wire.tap.findClear(SECRET), []);

      const startedMs = performance.now();
      await mesh().startAgent(node);
      assert.equal(await ask(mesh(), 'client', server(8002), SECRET), SECRET + SECRET);
      t.diagnostic(`traffic flows again ${Math.round(performance.now() - startedMs)} ms after the restart`);
      await wire.sniffer.settle();
      assert.deepEqual(wire.tap.findClear(SECRET), []);
    },
  );
}

/** The agent of the client accepts, finds nobody at the other side, and ends the connection without a byte. */
async function assertDead(from: string): Promise<void> {
  using client = await dial(mesh(), from, server(8002));
  client.socket.write(SECRET);
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
}

test('an agent that starts over adopts the redirection it finds instead of tearing it down', privileged, async () => {
  mesh().agent('n1').kill('SIGKILL');
  await mesh().agent('n1').exited;
  const agent = await mesh().startAgent('n1');
  const line = await agent.line((found) => found.message === 'pod captured', 'capture');
  assert.equal(line['adopted'], true);
});
