/** Connections of a soak: some live long and stream checked records, others come at a steady rate; they end in every way there is. */
import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import type net from 'node:net';
import { messageOf } from '../../../src/base/errors.ts';
import { formatHostPort } from '../../../src/base/ip.ts';
import { Client } from '../../support/mesh-traffic.ts';
import { NumberedStream } from '../../support/numbered.ts';
import { bounded, pause, repeat, type Scene } from './actor.ts';

export const PORT = 8080;
/** Who dials whom: HBONE both ends ours, on one node and between two; plaintext into the mesh; out of it. One destination per client. */
export const WAYS = [
  ['client', 'server'],
  ['twin', 'local'],
  ['outside', 'server'],
  ['near', 'outside'],
] as const;
/** What this process itself may take on a busy machine; no claim hangs on it. */
const PATIENCE_MS = 60_000;
/** A line is written at the end of a connection, which the agent may see later than its client. */
const LINES_WITHIN_MS = 3_000;
const RECORD_INTERVAL_MS = 300;
const STREAM_LIFE_MS = { min: 2_000, max: 30_000 };
const MAX_CALL_BYTES = 64 * 1024;

async function dial({ mesh }: Scene, [from, to]: (typeof WAYS)[number]): Promise<net.Socket> {
  return await mesh.dial(from, { ip: mesh.pod(to).ip, port: PORT }, PATIENCE_MS);
}

function wayOf(at: number): (typeof WAYS)[number] {
  return WAYS[at % WAYS.length] ?? WAYS[0];
}

/** So many streams at any time; each ends in order or by a reset, and another takes its place. */
export async function keepStreams(scene: Scene, count: number): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, (_, at) =>
      repeat(`stream ${wayOf(at).join(' to ')}`, scene, () => stream(scene, at)),
    ),
  );
}

async function stream({ ledger, signal, ...scene }: Scene, at: number): Promise<void> {
  const socket = await dial({ ledger, signal, ...scene }, wayOf(at));
  const address = formatHostPort({ ip: socket.localAddress ?? '', port: socket.localPort ?? 0 });
  const numbered = new NumberedStream(socket, RECORD_INTERVAL_MS);
  await pause(signal, randomInt(STREAM_LIFE_MS.min, STREAM_LIFE_MS.max));
  const isReset = !signal.aborted && randomInt(2) === 0;
  const { failure } = numbered.received;
  if (isReset) {
    numbered.abort();
    socket.resetAndDestroy();
  } else await bounded('a stream ends', numbered.stop());
  ledger.count('records', numbered.received.records);
  ledger.count(isReset ? 'streams reset' : 'streams ended');
  const problem = failure ?? (isReset ? undefined : numbered.received.failure);
  if (problem !== undefined) throw new Error(`${problem}; ${await causeOf({ ledger, signal, ...scene }, address)}`);
}

/** What agents say of the connection of a client, soon. */
async function causeOf({ mesh, signal }: Scene, address: string): Promise<string> {
  await pause(signal, LINES_WITHIN_MS);
  const lines = mesh.agents.flatMap(({ node, lines }) =>
    lines
      .filter((line) => line.scope === 'access' && line['src.addr'] === address)
      .map((line) => `${node.name}: ${JSON.stringify([line['direction'], line['reason'], line['error']])}`),
  );
  return lines.length === 0 ? `no agent tells of ${address}` : lines.join(', ');
}

/** New connections at `perSecond`, over all ways in turn. */
export async function makeCalls(scene: Scene, perSecond: number): Promise<void> {
  const open = new Set<Promise<void>>();
  const startedMs = performance.now();
  for (let made = 0; !scene.signal.aborted; made += 1) {
    const way = wayOf(made);
    const done = call(scene, way)
      .catch((error: unknown) => scene.ledger.fail(`call ${way.join(' to ')}`, error))
      .finally(() => open.delete(done));
    open.add(done);
    await pause(scene.signal, Math.max(0, startedMs + ((made + 1) * 1_000) / perSecond - performance.now()));
    // A machine that cannot keep up is not buried.
    if (open.size > 10 * perSecond) await Promise.race(open);
  }
  await Promise.all(open);
}

async function call(scene: Scene, way: (typeof WAYS)[number]): Promise<void> {
  const request = randomBytes(randomInt(1, MAX_CALL_BYTES));
  using client = new Client(await dial(scene, way));
  try {
    await exchange(scene, client, request);
  } catch (error) {
    throw new Error(`${messageOf(error)}; ${await causeOf(scene, client.address)}`, { cause: error });
  }
}

/** One of the ways in which a connection is used and ends. */
async function exchange(scene: Scene, client: Client, request: Buffer): Promise<void> {
  switch (randomInt(4)) {
    case 0:
      scene.ledger.count('calls reset');
      client.socket.write(request);
      await client.atLeast(1);
      client.socket.resetAndDestroy();
      return;
    case 1:
      scene.ledger.count('calls given up at once');
      return;
    case 2: {
      // Both halves are used one after the other on one connection, then each ends on its own.
      scene.ledger.count('calls half-closed late');
      const half = request.length >> 1;
      client.socket.write(request.subarray(0, half));
      if (half > 0) await client.atLeast(half);
      client.socket.end(request.subarray(half));
      break;
    }
    default:
      scene.ledger.count('calls');
      client.socket.end(request);
  }
  assert.equal(await client.ended(), 'end');
  assert(client.received.equals(request), `${client.bytes} bytes of ${request.length} came back, or others`);
}
