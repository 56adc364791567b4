/**
 * Every byte arrives, in order, once, and nothing gets stuck or grows: many long connections with moods through the mesh.
 * Smaller or larger: CULVERT_INTEGRITY_MIB (64), CULVERT_INTEGRITY_CONNECTIONS (100), CULVERT_INTEGRITY_SEED.
 */
import assert from 'node:assert/strict';
import type net from 'node:net';
import { test } from 'node:test';
import { meshForFile } from '../../support/mesh.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { type Mood, type Progress, type Received, seededRandom, transfer } from './transfer.ts';

const MIB = 1024 * 1024;
const BYTES = Number(process.env['CULVERT_INTEGRITY_MIB'] ?? 64) * MIB;
const CONNECTIONS = Number(process.env['CULVERT_INTEGRITY_CONNECTIONS'] ?? 100);
const RESETS = Math.ceil(CONNECTIONS / 4);
const SEED = Number(process.env['CULVERT_INTEGRITY_SEED'] ?? Date.now() % 2 ** 32);
/** Windows of one tunnel each way and socket buffers of every connection, with room; not what was sent. */
const MOST_GROWTH = 512 * MIB;
/** Without a single byte for so long, something is stuck. */
const STUCK_MS = 60_000;
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server'] } });

const CUT_AT_ONCE: Received = { bytes: 0, wrongAt: undefined, how: 'reset' };

interface Pair {
  readonly client: Mood;
  readonly server: Mood;
}

/** Half-closes in either order, slow readers on either side, and for the last ones a reset somewhere on the way. */
function moods(index: number, random: () => number): Pair {
  const speaksLast = random();
  const mood = (key: number, peerKey: number, isLast: boolean): Mood => ({
    bytes: BYTES,
    key,
    peerKey,
    speaksLast: isLast,
    restMs: random() < 0.2 ? 20 : 0,
  });
  const client = mood(2 * index, 2 * index + 1, speaksLast < 0.1);
  const server = mood(2 * index + 1, 2 * index, speaksLast > 0.9);
  if (index < CONNECTIONS) return { client, server };
  const resetAfter = Math.floor(random() * BYTES * 0.5);
  return random() < 0.5 ? { client: { ...client, resetAfter }, server } : { client, server: { ...server, resetAfter } };
}

/** The server learns from the first four bytes which connection this is. */
function pairUp(
  random: () => number,
  pairs: readonly Pair[],
  progress: readonly Progress[],
): Map<number, Promise<Received>> {
  const ends = new Map(pairs.map((_, i) => [i, Promise.withResolvers<Received>()]));
  mesh().serve('server', 8080, (socket) => {
    socket.pause();
    void firstBytes(socket, 4).then((head) => {
      if (head === undefined) return;
      const index = head.readUInt32BE();
      // Told only now: a client that resets before its connection is set up takes everything with it.
      socket.write('!');
      const pair = pairs[index];
      const own = progress[index];
      if (pair !== undefined && own !== undefined) {
        ends.get(index)?.resolve(transfer(socket, pair.server, random, own));
      }
    });
  });
  return new Map([...ends].map(([i, { promise }]) => [i, promise]));
}

/** `undefined`: the connection ended first, because the other side may reset at any moment and a reset overtakes data. */
async function firstBytes(socket: net.Socket, bytes: number): Promise<Buffer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Buffer | undefined>();
  const onClose = (): void => resolve(undefined);
  socket.once('close', onClose);
  const look = (): void => {
    const found = socket.read(bytes) as Buffer | null;
    if (found !== null) resolve(found);
    else socket.once('readable', look);
  };
  look();
  const head = await promise;
  socket.removeAllListeners('readable').off('close', onClose);
  return head;
}

test(`${CONNECTIONS} connections of ${BYTES / MIB} MiB each way arrive bit for bit, whoever ends first or reads slowly`, {
  skip: skipWithoutRoot,
  timeout: 600_000,
}, async (t) => {
  t.diagnostic(`CULVERT_INTEGRITY_SEED=${SEED}`);
  const random = seededRandom(SEED);
  const pairs = Array.from({ length: CONNECTIONS + RESETS }, (_, i) => moods(i, random));
  const progress = {
    client: pairs.map((): Progress => ({ sentBytes: 0, receivedBytes: 0, state: '' })),
    server: pairs.map((): Progress => ({ sentBytes: 0, receivedBytes: 0, state: '' })),
  };
  const servers = pairUp(random, pairs, progress.server);
  using stuck = watchProgress(progress);
  const started = {
    ms: performance.now(),
    rss: mesh().agents.map((agent) => agent.rssBytes),
    cpu: mesh().agents.map((agent) => agent.cpuMs),
    own: process.cpuUsage(),
  };
  const peak = [...started.rss];
  const watch = setInterval(() => {
    for (const [i, agent] of mesh().agents.entries()) peak[i] = Math.max(peak[i] ?? 0, agent.rssBytes);
  }, 200);

  const all = Promise.all(
    pairs.map(async ({ client }, i) => {
      const socket = await mesh().dial('client', { ip: mesh().pod('server').ip, port: 8080 });
      const head = Buffer.alloc(4);
      head.writeUInt32BE(i);
      socket.write(head);
      if ((await firstBytes(socket, 1)) === undefined) return CUT_AT_ONCE;
      const own = progress.client[i];
      return own === undefined ? undefined : await transfer(socket, client, random, own);
    }),
  );
  const clients = await Promise.race([all, stuck.found]);
  await Promise.race([Promise.all(servers.values()), stuck.found]);
  clearInterval(watch);

  for (const [i, pair] of pairs.entries()) {
    const server = await servers.get(i);
    assert.ok(server !== undefined);
    check(`server of ${i}`, server, pair.client);
    check(`client of ${i}`, clients[i], pair.server);
    const isReset = pair.client.resetAfter !== undefined || pair.server.resetAfter !== undefined;
    if (!isReset) assert.deepEqual([server.how, clients[i]?.how], ['end', 'end'], `ends of ${i}`);
  }
  const seconds = (performance.now() - started.ms) / 1_000;
  t.diagnostic(`${((2 * CONNECTIONS * BYTES) / MIB / seconds).toFixed(0)} MiB/s, ${seconds.toFixed(1)} s`);
  const own = process.cpuUsage(started.own);
  t.diagnostic(
    `CPU seconds: this process ${((own.user + own.system) / 1e6).toFixed(1)}, agents ${mesh()
      .agents.map((agent, i) => ((agent.cpuMs - (started.cpu[i] ?? 0)) / 1_000).toFixed(1))
      .join(', ')}`,
  );
  for (const [i, agent] of mesh().agents.entries()) {
    const growth = (peak[i] ?? 0) - (started.rss[i] ?? 0);
    t.diagnostic(
      `RSS of ${agent.node.name}: ${Math.round((started.rss[i] ?? 0) / MIB)} MiB, +${Math.round(growth / MIB)}`,
    );
    assert.ok(growth < MOST_GROWTH, `an agent grew by ${growth} bytes`);
    const metric = await metricsOf(agent);
    assert.equal(metric('culvert_bugs_total'), 0);
  }
  await allClosed();
});

/** `found` rejects with a report when nothing moves any more. */
function watchProgress(progress: Readonly<Record<'client' | 'server', readonly Progress[]>>) {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  const moved = (): number =>
    [...progress.client, ...progress.server].reduce(
      (sum, { sentBytes, receivedBytes }) => sum + sentBytes + receivedBytes,
      0,
    );
  let last = { bytes: -1, ms: 0 };
  const timer = setInterval(() => {
    const bytes = moved();
    if (bytes !== last.bytes) last = { bytes, ms: performance.now() };
    else if (performance.now() - last.ms > STUCK_MS) reject(new Error(report(progress)));
  }, 500);
  return { found: promise, [Symbol.dispose]: () => clearInterval(timer) };
}

function report({ client, server }: Readonly<Record<'client' | 'server', readonly Progress[]>>): string {
  const open = client.flatMap((own, i) =>
    own.state === 'closed' && server[i]?.state === 'closed'
      ? []
      : [`${i}: ${JSON.stringify(own)} ${JSON.stringify(server[i])}`],
  );
  return `${open.length} connections are stuck:\n${open.slice(0, 20).join('\n')}`;
}

/** What one end received of what the other end meant to send. */
function check(name: string, received: Received | undefined, sent: Mood): void {
  assert.ok(received !== undefined);
  if (sent.resetAfter === undefined && received.how === 'end') assert.equal(received.bytes, sent.bytes, name);
  assert.ok(received.bytes <= sent.bytes, name);
  assert.equal(received.wrongAt, undefined, `${name}: a wrong byte`);
}

/** Every connection has ended in both agents: nothing is stuck. */
async function allClosed(): Promise<void> {
  for (const agent of mesh().agents) {
    for (;;) {
      const metric = await metricsOf(agent);
      const [opened, closed] = [
        metric('istio_tcp_connections_opened_total'),
        metric('istio_tcp_connections_closed_total'),
      ];
      if (opened === closed) break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
