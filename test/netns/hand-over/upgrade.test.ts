import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestMesh } from '../../support/mesh.ts';
import { ask, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { echo, NumberedStream } from '../../support/numbered.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const NODES = { n1: ['client'], n2: ['server'], n3: ['outside'] };
const STREAMS = 20;

/** Replaces the agent of `node` by a new process; resolves when that has the node. */
async function upgrade(mesh: TestMesh, node: string) {
  const old = mesh.agent(node);
  const next = mesh.spawnAgent(node, ['--take-over', 'true']);
  const taken = await next.line(({ message }) => message === 'took the node over', 'line that it took the node over');
  return { old, next, taken };
}

test(
  'an upgrade of both nodes resets no connection, loses no byte, and refuses no new connection',
  privileged,
  async () => {
    await using mesh = await TestMesh.start({ nodes: NODES, flags: ['--hold', '60s'] });
    mesh.serve('server', 8080, echo);
    mesh.serve('outside', 8080, echo);
    mesh.serve('server', 8081, doubling);
    const server = mesh.pod('server').ip;
    const ways = [
      ['client', server],
      ['outside', server],
      ['client', mesh.pod('outside').ip],
    ] as const;
    const opening = ways.flatMap(([from, ip]) =>
      Array.from({ length: STREAMS }, async () => new NumberedStream(await mesh.dial(from, { ip, port: 8080 }))),
    );
    const streams = await Promise.all(opening);

    let isOver = false;
    let asked = 0;
    const asking = ['client', 'outside'].map(async (from) => {
      while (!isOver) {
        assert.equal(await ask(mesh, from, { ip: server, port: 8081 }, 'new'), 'newnew');
        asked += 1;
      }
    });
    const first = await upgrade(mesh, 'n2');
    const second = await upgrade(mesh, 'n1');
    isOver = true;
    await Promise.all(asking);
    assert.ok(asked > 0);
    assert.ok(Number(first.taken['moved']) >= STREAMS);
    assert.ok(Number(second.taken['moved']) >= STREAMS);

    const before = streams.map(({ records }) => records);
    await Promise.all(streams.map((stream) => stream.stop()));
    assert.deepEqual([...new Set(streams.map(({ failure }) => failure))], [undefined]);
    assert.ok(streams.every(({ records }, at) => records >= (before[at] ?? 0)));
    // What could not move has ended, and the former agents with it.
    assert.deepEqual([await first.old.exited, await second.old.exited], [0, 0]);
    const lines = [first, second].flatMap(({ old, next }) => [...old.lines, ...next.lines]);
    const complete = lines.filter(({ message }) => message === 'connection complete');
    const ids = complete.map((line) => line['connection']);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(
      complete.filter((line) => line['error'] !== undefined),
      [],
    );
  },
);
