/** python3-h2 as HBONE server: our agent dials it, and every setting, header and handshake detail is compared. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { dial, refused } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import type { PythonProgram } from '../../support/python-program.ts';
import { servePeer, skipWithoutH2 } from './peer.ts';

const privileged = { skip: skipWithoutRoot || skipWithoutH2, timeout: 60_000 };
/** The peer listens in `outside-peer`, which the mesh believes to be an HBONE pod as any other. */
const mesh = meshForFile({
  nodes: { n1: ['client', 'other'], n3: ['outside-peer'] },
  mesh: (found) => ({ workloads: found.workloads({ 'outside-peer': { protocol: 'HBONE' } }) }),
});
const HOST = 'web.demo.svc.cluster.local';

function target(port = 8080) {
  return { ip: mesh().pod('outside-peer').ip, port };
}

function startPeer(...options: string[]): Promise<PythonProgram> {
  return servePeer(mesh(), 'outside-peer', options);
}

test('TLS 1.3, ALPN h2, no server name, no resumption, and the identity of the client pod', privileged, async () => {
  await using peer = await startPeer();
  using client = await dial(mesh(), 'client', target());
  assert.equal(await client.exchange('x', 8), 'python:x');
  const { event: _event, session: _session, ...tls } = await peer.event('tls');
  assert.deepEqual(tls, {
    version: 'TLSv1.3',
    cipher: 'TLS_AES_256_GCM_SHA384',
    alpn: 'h2',
    sni: null,
    names: [identityOf('client')],
    resumed: false,
  });
});

test(
  'SETTINGS, but for one of ours, and the connection window are those of the reference client',
  privileged,
  async () => {
    await using peer = await startPeer();
    using client = await dial(mesh(), 'client', target());
    await client.exchange('x', 8);
    const { settings } = await peer.event('settings');
    // ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, and one of ours that others ignore.
    const wanted = [
      [2, 0],
      [4, 4_194_304],
      [5, 1_048_576],
      [6, 16_384],
      [0xfc01, 1],
    ];
    assert.deepEqual(sorted(settings), wanted);
    const { increment } = await peer.event('window');
    assert.equal(increment, 16_777_216 - 65_535);
  },
);

test(
  'a CONNECT has :method and :authority, and baggage, forwarded, traceparent and our culvert-resume, and nothing else',
  privileged,
  async () => {
    await using peer = await startPeer();
    using client = await dial(mesh(), 'client', target());
    await client.exchange('x', 8);
    const { headers, ended } = await peer.event('request');
    assert.equal(ended, false);
    const names = new Map(headers as [string, string][]);
    assert.equal((headers as unknown[]).length, names.size, 'a repeated header');
    const ours = 'culvert-resume';
    assert.deepEqual([...names.keys()].toSorted(), [
      ':authority',
      ':method',
      'baggage',
      ours,
      'forwarded',
      'traceparent',
    ]);
    assert.equal(names.get(ours), '1');
    assert.deepEqual(
      (headers as [string, string][])
        .slice(0, 2)
        .map(([name]) => name)
        .toSorted(),
      [':authority', ':method'],
    );
    assert.equal(names.get(':method'), 'CONNECT');
    assert.equal(names.get(':authority'), `${target().ip}:8080`);
    assert.equal(
      names.get('baggage'),
      'k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=client-deployment,service.name=client,service.version=v1',
    );
    assert.equal(names.get('forwarded'), `for="${client.address}"`);
    assert.match(names.get('traceparent') ?? '', /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00$/);
  },
);

test('through a service, forwarded names its host and the authority the endpoint', privileged, async () => {
  const outside = { protocol: 'HBONE', services: { [`demo/${HOST}`]: { 80: 8080 } } };
  const service = { name: 'web', namespace: 'demo', hostname: HOST, vips: ['/10.96.0.30'], ports: { 80: 8080 } };
  await mesh().update({ services: [service], workloads: mesh().workloads({ 'outside-peer': outside }) });
  await using peer = await startPeer();
  using client = await dial(mesh(), 'client', { ip: '10.96.0.30', port: 80 });
  await client.exchange('x', 8);
  const { headers } = await peer.event('request');
  const names = new Map(headers as [string, string][]);
  assert.equal(names.get('forwarded'), `for="${client.address}";host=${HOST}`);
  assert.equal(names.get(':authority'), `${target().ip}:8080`);
});

test('connections of one pod share a tunnel with a trace each; another pod has its own', privileged, async () => {
  await using peer = await startPeer();
  using first = await dial(mesh(), 'client', target());
  await first.exchange('1', 8);
  using second = await dial(mesh(), 'client', target(8081));
  await second.exchange('2', 8);
  using third = await dial(mesh(), 'other', target());
  await third.exchange('3', 8);
  const requests = peer.events.filter(({ event }) => event === 'request');
  assert.deepEqual(
    requests.map(({ session }) => session),
    [1, 1, 2],
  );
  const traces = requests.map(({ headers }) => new Map(headers as [string, string][]).get('traceparent'));
  assert.equal(new Set(traces).size, 3);
  const identities = peer.events.filter(({ event }) => event === 'tls').map(({ names }) => names);
  assert.deepEqual(identities, [[identityOf('client')], [identityOf('other')]]);
});

test('bytes and the end of each half pass both ways', privileged, async () => {
  await using peer = await startPeer();
  using client = await dial(mesh(), 'client', target());
  client.socket.end('hello');
  assert.equal(await client.ended(), 'end');
  assert.equal(client.text, 'python:hello');
  await peer.event('end');
  const data = peer.events.filter(({ event }) => event === 'data').map((event) => event['data']);
  assert.equal(data.join(''), 'hello');
});

test('nothing of the application is sent before the answer to CONNECT', privileged, async () => {
  await using peer = await startPeer('silent=1');
  using client = await dial(mesh(), 'client', target());
  client.socket.write('early');
  await peer.event('request');
  using other = await dial(mesh(), 'client', target(8081));
  other.socket.write('early');
  await peer.event('request', 2);
  assert.deepEqual(
    peer.events.filter(({ event }) => event === 'data'),
    [],
  );
});

for (const [status, reason, text] of [
  ['401', 'CV-CONNECT-DENIED', 'http status: 401 Unauthorized'],
  ['403', 'CV-CONNECT-DENIED', 'http status: 403 Forbidden'],
  ['400', 'CV-CONNECT-REJECTED', 'http status: 400 Bad Request'],
  ['503', 'CV-CONNECT-FAILED', 'http status: 503 Service Unavailable'],
  ['204', 'CV-CONNECT-FAILED', 'http status: 204'],
] as const) {
  test(`an answer of ${status} ends the connection with ${reason}, and is not tried again`, privileged, async () => {
    await using peer = await startPeer(`status=${status}`);
    using client = await dial(mesh(), 'client', target());
    client.socket.write('hello');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.bytes, 0);
    const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.deepEqual([line['reason'], line['error']], [reason, text]);
    assert.equal(peer.events.filter(({ event }) => event === 'request').length, 1);
  });
}

test('a reset with CANCEL ends the connection in order, any other code resets it', privileged, async () => {
  for (const [code, end] of [
    [8, 'end'],
    [2, 'reset'],
  ] as const) {
    await using _peer = await startPeer(`reset=${code}`);
    using client = await dial(mesh(), 'client', target());
    client.socket.write('hello');
    assert.equal(await client.ended(), end, `code ${code}`);
  }
});

test('after GOAWAY open connections go on and new ones get another tunnel', privileged, async () => {
  await using peer = await startPeer('goaway=1');
  using first = await dial(mesh(), 'client', target());
  assert.equal(await first.exchange('1', 8), 'python:1');
  using second = await dial(mesh(), 'client', target());
  assert.equal(await second.exchange('2', 8), 'python:2');
  assert.equal(await first.exchange('3', 8), 'python:1python:3');
  const sessions = peer.events.filter(({ event }) => event === 'request').map(({ session }) => session);
  assert.deepEqual(sessions, [1, 2]);
});

test('a peer that takes one stream at a time gets the others on further tunnels', privileged, async () => {
  await using peer = await startPeer('maxstreams=1');
  const clients = [];
  for (let i = 0; i < 3; i++) {
    const client = await dial(mesh(), 'client', target());
    clients.push(client);
    assert.equal(await client.exchange('x', 8), 'python:x');
  }
  for (const client of clients) client[Symbol.dispose]();
  const sessions = peer.events.filter(({ event }) => event === 'request').map(({ session }) => session);
  assert.equal(new Set(sessions).size, 3);
});

test('a peer that vanishes ends the connections in its tunnel, and the next one dials anew', privileged, async () => {
  const peer = await startPeer();
  using client = await dial(mesh(), 'client', target());
  await client.exchange('x', 8);
  await peer[Symbol.asyncDispose]();
  assert.equal(await client.ended(), 'reset');
  const line = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
  assert.equal(line['reason'], 'CV-TUNNEL-CLOSED');
  await refused(mesh(), 'client', target());
  await using _again = await startPeer();
  using next = await dial(mesh(), 'client', target());
  assert.equal(await next.exchange('x', 8), 'python:x');
});

test('an idle tunnel is asked for a PING after ten seconds, with the octets of the reference', privileged, async () => {
  await using peer = await startPeer();
  using client = await dial(mesh(), 'client', target());
  await client.exchange('x', 8);
  const { payload } = await peer.event('ping');
  assert.equal(payload, '3b7cdb7a0b8716b4');
  assert.equal(await client.exchange('y', 8), 'python:xpython:y');
});

function sorted(pairs: unknown): [number, number][] {
  return (pairs as [number, number][]).toSorted(([a], [b]) => a - b);
}
