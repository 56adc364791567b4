import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import { VerdictAuthority } from '../../../src/agent/verdicts/verdict-authority.ts';
import { CachedVerdicts } from '../../../src/agent/workers/cached-verdicts.ts';
import { type Item, PortLink } from '../../../src/agent/workers/port-link.ts';
import type { MainCalls, WorkerCalls } from '../../../src/agent/workers/protocol.ts';
import { TicketLedger } from '../../../src/agent/workers/ticket-ledger.ts';
import { VerdictSession } from '../../../src/agent/workers/verdict-session.ts';
import { type Logger, silentLogger } from '../../../src/base/log.ts';
import { Generation } from '../../../src/model/generation.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import type { InboundQuestion, OutboundQuestion, TlsMaterial, VerdictPush } from '../../../src/model/verdict.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import {
  DNS_SETTINGS,
  memberOf,
  noHosts,
  policy,
  SETTINGS,
  seeded,
  service,
  vip,
  workload,
} from '../../unit/model/sample-mesh.ts';

const POD = { uid: 'p1', name: 'server', namespace: 'default', serviceAccount: 'server' };
const SERVER_ID = 'spiffe://cluster.local/ns/default/sa/server';
const server = workload('server', { ips: ['10.0.0.2'] });
const client = workload('client', { ips: ['10.0.0.1'], node: 'node-2' });
const endpoints = Array.from({ length: 5 }, (_, at) =>
  workload(`web-${at}`, { ips: [`10.0.1.${at}`], node: 'node-2', services: memberOf({ web: {} }) }),
);
const OPEN: MeshState = {
  ...EMPTY_MESH,
  workloads: [server, client, ...endpoints],
  services: [service('web', { vips: [vip('10.1.0.1')] })],
};
const CLOSED: MeshState = { ...OPEN, policies: [policy('nobody', { rules: [] })] };

/** Only a hang gets here. */
const LIMIT = { timeout: 90_000 };

/** A worker's end and the main thread's end, with a real port between them that the test can stop. */
function world(state = OPEN, log: Logger = silentLogger) {
  const clock = new FakeClock();
  const random = seeded(7);
  const asked: string[] = [];
  const material = (identity: string): TlsMaterial => ({
    identity,
    keyPem: 'key',
    chainPem: 'chain',
    rootsPem: [],
    serial: String(asked.length),
    notAfterMs: clock.wallMs() + 60_000,
  });
  const authority = new VerdictAuthority(
    { ...SETTINGS, nodeName: 'node-1', isPolicyLogAtInfo: false, dns: DNS_SETTINGS },
    {
      clock,
      random,
      certificates: {
        get: async (identity) => {
          asked.push(`certificate ${identity}`);
          return material(identity);
        },
        prefetch: () => {},
        forget: () => {},
      },
      lookupHost: noHosts,
      log,
    },
  );
  authority.addPod(POD);
  authority.replace(state);

  const { port1, port2 } = new MessageChannel();
  const held: (readonly Item[])[] = [];
  let isBlocked = false;
  const session: VerdictSession = new VerdictSession(authority, (push) => main.tell('push', push));
  const main: PortLink<MainCalls, WorkerCalls> = new PortLink<MainCalls, WorkerCalls>(
    (items) => port1.postMessage(items),
    {
      ...session.calls,
      report: () => {},
      claim: async () => 'nowhere',
      busy: () => {},
      attacked: () => {},
      ready: () => {},
    },
  );
  session.open();
  const take = (items: readonly Item[]): void => {
    for (const item of items) if (item[0] === 'call') asked.push(item[2]);
    main.receive(items);
  };
  port1.on('message', (items: readonly Item[]) => {
    if (isBlocked) held.push(items);
    else take(items);
  });
  const ledger = new TicketLedger(() => {});
  const none = (): never => assert.fail('not asked in this test');
  const link: PortLink<WorkerCalls, MainCalls> = new PortLink<WorkerCalls, MainCalls>(
    (items) => port2.postMessage(items),
    {
      push: (push) => verdicts.receive(push),
      startPod: none,
      needs: none,
      warm: none,
      leaveListeners: none,
      rest: none,
      moveSome: none,
      adopt: none,
      surrender: none,
      hasten: none,
      shed: none,
      trim: none,
      stopPod: none,
      holdings: none,
      connections: none,
      usage: none,
      find: none,
      settle: none,
      setBudgets: none,
      setLogFilter: none,
      inspect: none,
      finish: none,
    },
  );
  port2.on('message', (items: readonly Item[]) => link.receive(items));
  const verdicts = new CachedVerdicts({
    link,
    generation: new Generation(authority.generation.memory),
    certificateGeneration: new Generation(authority.certificateGeneration.memory),
    ledger,
    clock,
    random,
  });
  const pushes: VerdictPush[] = [];
  verdicts.subscribe((push) => pushes.push(push));
  return {
    clock,
    authority,
    session,
    verdicts,
    pushes,
    asked,
    /** What the worker would tell with its next report. */
    report: () => session.add(structuredClone(ledger.take())),
    block: () => (isBlocked = true),
    unblock: () => {
      isBlocked = false;
      for (const items of held.splice(0)) take(items);
    },
    /** Resolves when `condition` holds: messages are on their way. */
    until: async (condition: () => boolean): Promise<void> => {
      while (!condition()) await nextTurn();
    },
    [Symbol.dispose]: () => port1.close(),
  };
}

const question = (connectionId: string, port = 40_000): InboundQuestion => ({
  podUid: 'p1',
  connectionId,
  peer: { ip: '10.0.0.1', port },
  local: { ip: '10.0.0.2', port: 15_008 },
  hbone: { peerIdentity: 'spiffe://cluster.local/ns/default/sa/client', authority: '10.0.0.2:8080' },
});

const dial = (port: number, ip = '10.1.0.1'): OutboundQuestion => ({
  podUid: 'p1',
  client: { ip: '10.0.0.2', port },
  target: { ip, port: 80 },
});

test('every question gets the answer of the authority', LIMIT, async () => {
  using port = world();
  const { verdicts, authority } = port;
  assert.deepEqual(await verdicts.inbound(question('a')), await authority.inbound(question('a')));
  assert.deepEqual(await verdicts.outbound(dial(1, '10.0.0.1')), await authority.outbound(dial(1, '10.0.0.1')));
  assert.equal(await verdicts.identityOf('p1'), SERVER_ID);
  assert.equal((await verdicts.certificate(SERVER_ID)).identity, SERVER_ID);
});

test('an unknown pod is refused after the wait, in the words of the authority', LIMIT, async () => {
  using port = world();
  const { verdicts, clock, asked } = port;
  const identity = verdicts.identityOf('nobody');
  await port.until(() => asked.includes('identityOf'));
  clock.advance(5_000);
  await assert.rejects(identity, { code: 'CV-WORKLOAD-UNKNOWN' });
});

test(
  'a second connection is allowed without asking, and remembered by the authority under its own name',
  LIMIT,
  async () => {
    using port = world();
    const { verdicts, authority, asked } = port;
    await verdicts.inbound(question('a', 1));
    const verdict = await verdicts.inbound(question('b', 2));
    assert.equal(verdict.kind, 'accept');
    assert.equal(asked.filter((name) => name === 'inbound').length, 1);
    port.report();
    assert.equal(authority.trackedCount, 2);
    verdicts.release('a');
    verdicts.release('b');
    port.report();
    assert.equal(authority.trackedCount, 0);
  },
);

test('a policy change closes connections that were allowed by an earlier verdict too', LIMIT, async () => {
  using port = world();
  const { verdicts, authority, pushes, clock } = port;
  await verdicts.inbound(question('asked'));
  await verdicts.inbound(question('told'));
  port.report();
  await verdicts.inbound(question('untold'));

  authority.replace(CLOSED);
  clock.advance(0);
  await port.until(() => pushes.length === 1);
  port.report();
  await port.until(() => pushes.length === 2);

  const revoked = pushes.flatMap((push) => (push.kind === 'revoke' ? push.connectionIds : []));
  assert.deepEqual(revoked, ['asked', 'told', 'untold']);
  assert.equal((await verdicts.inbound(question('next'))).kind, 'refuse');
});

test('from the moment of a change nobody is allowed by what was before, though no message came', LIMIT, async () => {
  using port = world();
  const { verdicts, authority } = port;
  await verdicts.inbound(question('a'));
  await verdicts.outbound(dial(1, '10.0.0.1'));
  port.block();
  authority.replace(CLOSED);

  const inbound = verdicts.inbound(question('b'));
  const outbound = verdicts.outbound(dial(2, '10.0.0.1'));
  assert.equal(await Promise.race([inbound, outbound, nextTurn('waits')]), 'waits');
  port.unblock();

  assert.equal((await inbound).kind, 'refuse');
  assert.equal((await outbound).kind, 'hbone');
});

test('an answer that a change overtook is not used: the question is asked again', LIMIT, async () => {
  using port = world();
  const { verdicts, authority, asked } = port;
  const answer = verdicts.inbound(question('a'));
  await port.until(() => asked.includes('inbound'));
  // Judged, and on its way back.
  authority.replace(CLOSED);
  assert.equal((await answer).kind, 'refuse');
  assert.equal(asked.filter((name) => name === 'inbound').length, 2);
});

test('while the main thread stands still, known verdicts and certificates serve', LIMIT, async () => {
  using port = world();
  const { verdicts, clock } = port;
  await verdicts.inbound(question('a'));
  await verdicts.outbound(dial(1));
  await verdicts.identityOf('p1');
  await verdicts.certificate(SERVER_ID);
  port.block();
  clock.advance(5_000);
  for (let connection = 0; connection < 100; connection++) {
    assert.equal((await verdicts.inbound(question(`b${connection}`))).kind, 'accept');
    assert.equal((await verdicts.outbound(dial(connection + 2))).kind, 'hbone');
  }
  assert.equal(await verdicts.identityOf('p1'), SERVER_ID);
  assert.equal((await verdicts.certificate(SERVER_ID)).identity, SERVER_ID);
});

test('endpoints stay a matter of chance: all of a service are used, each about as often', LIMIT, async () => {
  using port = world();
  const { verdicts } = port;
  const counts = new Map<string, number>();
  for (let connection = 0; connection < 1_000; connection++) {
    const verdict = await verdicts.outbound(dial(connection + 1));
    assert.equal(verdict.kind, 'hbone');
    if (verdict.kind !== 'hbone') continue;
    counts.set(verdict.address.ip, (counts.get(verdict.address.ip) ?? 0) + 1);
    assert.match(verdict.forwarded, new RegExp(`for="10\\.0\\.0\\.2:${connection + 1}"`));
    // A connection takes at least a turn, in which fresh verdicts arrive.
    await nextTurn();
  }
  assert.equal(counts.size, 5);
  for (const count of counts.values()) assert(count > 140 && count < 260, [...counts.values()].join(' '));
});

test('a certificate is asked for once, again after it changed, and again when it has expired', LIMIT, async () => {
  using port = world();
  const { verdicts, authority, asked, clock, pushes } = port;
  const times = (): number => asked.filter((name) => name === `certificate ${SERVER_ID}`).length;
  await verdicts.certificate(SERVER_ID);
  await verdicts.certificate(SERVER_ID);
  assert.equal(times(), 1);
  authority.certificateChanged(SERVER_ID);
  await verdicts.certificate(SERVER_ID);
  assert.equal(times(), 2);
  await port.until(() => pushes.length === 1);
  assert.deepEqual(pushes, [{ kind: 'certificate', identity: SERVER_ID }]);
  clock.advance(60_000);
  await verdicts.certificate(SERVER_ID);
  assert.equal(times(), 3);
});

test('while decisions of policies are logged, each connection is asked for', LIMIT, async () => {
  const lines: string[] = [];
  using port = world(OPEN, { debug: (message) => void lines.push(message) });
  const { verdicts, asked } = port;
  for (const id of ['a', 'b', 'c']) assert.equal((await verdicts.inbound(question(id))).kind, 'accept');
  assert.equal(asked.filter((name) => name === 'inbound').length, 3);
  assert.deepEqual(lines, Array(3).fill('no allow policies, allow'));
});

test('names are resolved as the authority does, and known ones while the main thread stands still', LIMIT, async () => {
  using port = world();
  const { verdicts, authority, asked } = port;
  const query = { podUid: 'p1', name: 'web.default.svc.cluster.local', type: 'A' } as const;
  assert.deepEqual(await verdicts.resolve(query), await authority.resolve(query));
  port.block();
  const known = await verdicts.resolve(query);
  assert.deepEqual(known.kind === 'answer' && known.addresses, ['10.1.0.1']);
  assert.equal(asked.filter((name) => name === 'resolve').length, 1);
});

test('revocation lists come before anything else, and each time they change', LIMIT, async () => {
  using port = world();
  const { authority, pushes } = port;
  authority.crlsChanged([new Uint8Array([1, 2, 3])]);
  await port.until(() => pushes.length === 1);
  assert.deepEqual(pushes, [{ kind: 'crls', crls: [new Uint8Array([1, 2, 3])] }]);
});

test('a worker that is gone leaves nothing behind at the authority', LIMIT, async () => {
  using port = world();
  const { verdicts, authority, session } = port;
  await verdicts.inbound(question('a'));
  await verdicts.inbound(question('b'));
  port.report();
  session[Symbol.dispose]();
  assert.equal(authority.trackedCount, 0);
});

test('a worker that lets a connection go leaves it to the one that was asked about it since', LIMIT, async () => {
  using port = world();
  const { verdicts, authority, pushes, clock } = port;
  await verdicts.inbound(question('a'));
  await authority.judgeInbound(question('a'));
  verdicts.release('a');
  port.report();
  assert.equal(authority.trackedCount, 1);
  authority.replace(CLOSED);
  clock.advance(0);
  await port.until(() => pushes.length === 1);
  assert.deepEqual(pushes[0]?.kind === 'revoke' && pushes[0].connectionIds, ['a']);
});

test('a verdict that comes after its worker has gone is remembered by nobody', LIMIT, async () => {
  using port = world(EMPTY_MESH);
  const { session, authority } = port;
  const reply = session.calls.inbound(question('a'));
  session[Symbol.dispose]();
  authority.replace(OPEN);
  assert.equal((await reply).verdict.kind, 'accept');
  assert.equal(authority.trackedCount, 0);
});

test('a connection that names a verdict nobody gave is closed', LIMIT, async () => {
  using port = world();
  const { session, pushes, authority } = port;
  session.add({ ticketUses: [['x', 99, 1]], released: [], ticketsLeft: [] });
  await port.until(() => pushes.length === 1);
  assert.equal(pushes[0]?.kind === 'revoke' && pushes[0].connectionIds[0], 'x');
  assert.equal(authority.trackedCount, 0);
});
