/** python3-h2 as HBONE client of a captured pod: settings, statuses and headers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import type { ProgramEvent, PythonProgram } from '../../support/python-program.ts';
import { dialPeer, skipWithoutH2 } from './peer.ts';

const privileged = { skip: skipWithoutRoot || skipWithoutH2, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n2: ['server', 'other'], n3: ['outside'] } });
const HOST = 'web.demo.svc.cluster.local';
const PROTOCOL_ERROR = 1;
const NO_ERROR = 0;

function open(identity = identityOf('client')): Promise<PythonProgram> {
  return dialPeer(mesh(), 'outside', { ip: mesh().pod('server').ip, identity });
}

function connectTo(authority: string, extra: readonly (readonly [string, string])[] = []) {
  return { do: 'connect', headers: [[':method', 'CONNECT'], [':authority', authority], ...extra] };
}

function serverPort(port: number): string {
  return `${mesh().pod('server').ip}:${port}`;
}

/** Number of the stream that the order number `count` opened. */
function streamOf(count: number): number {
  return 2 * count - 1;
}

function statusOf(event: ProgramEvent): string | undefined {
  return new Map(event['headers'] as [string, string][]).get(':status');
}

test(
  'SETTINGS, but for one of ours, the connection window and the certificate are those of the reference server',
  privileged,
  async () => {
    await using peer = await open();
    const { event: _event, ...tls } = await peer.event('tls');
    assert.deepEqual(tls, {
      version: 'TLSv1.3',
      cipher: 'TLS_AES_256_GCM_SHA384',
      alpn: 'h2',
      names: [identityOf('server')],
    });
    const { settings } = await peer.event('settings');
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, and one of ours that others ignore.
    const wanted = [
      [3, 200],
      [4, 4_194_304],
      [5, 1_048_576],
      [6, 65_536],
      [0xfc01, 1],
    ];
    assert.deepEqual(
      (settings as [number, number][]).toSorted(([a], [b]) => a - b),
      wanted,
    );
    assert.equal((await peer.event('window'))['increment'], 16_777_216 - 65_535);
  },
);

test(
  '200 comes with the baggage of the destination and nothing else, then bytes and ends pass both ways',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    await using peer = await open();
    peer.order(connectTo(serverPort(8080)));
    const response = await peer.event('response');
    assert.deepEqual(response['headers'], [
      [':status', '200'],
      [
        'baggage',
        'k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=server-deployment,service.name=server,service.version=v1',
      ],
    ]);
    assert.equal(response['ended'], false);
    peer.order({ do: 'data', stream: 1, data: 'hello' });
    assert.equal((await peer.event('data'))['data'], 'hellohello');
    peer.order({ do: 'end', stream: 1 });
    await peer.event('end');
    assert.deepEqual(
      peer.events.filter(({ event }) => event === 'reset'),
      [],
    );
  },
);

test('every refusal has its status, no other header, an end, and a reset that is no error', privileged, async () => {
  const policy = { name: 'no-8090', namespace: 'demo', scope: 'Namespace', action: 'Deny', dryRun: false };
  const service = { name: 'web', namespace: 'demo', hostname: HOST, vips: ['/10.96.0.40'], ports: { 80: 0 } };
  await mesh().update({
    policies: [{ ...policy, rules: [[[{ destinationPorts: [8090] }]]] }],
    services: [service],
    workloads: mesh().workloads({ server: { services: { [`demo/${HOST}`]: {} } } }),
  });
  const cases = [
    [connectTo(`${mesh().pod('other').ip}:8080`), '400', 'CV-IP-MISMATCH'],
    [connectTo('10.1.2.3:8080'), '400', 'CV-IP-MISMATCH'],
    [connectTo(serverPort(0)), '400', 'CV-AUTHORITY'],
    [connectTo(mesh().pod('server').ip), '400', 'CV-AUTHORITY'],
    [connectTo(':8080'), '400', 'CV-AUTHORITY'],
    [connectTo('server:99999'), '400', 'CV-AUTHORITY'],
    [connectTo('user@server:80'), '400', 'CV-AUTHORITY'],
    [connectTo(`http://${serverPort(8080)}`), '400', 'CV-AUTHORITY'],
    [get(), '400', 'CV-METHOD'],
    [connectTo(serverPort(8090)), '401', 'CV-POLICY-DENY'],
    [connectTo(serverPort(15_008)), '503', 'CV-SELF-CALL'],
    [connectTo(serverPort(15_006)), '503', 'CV-SELF-CALL'],
    [connectTo(serverPort(15_001)), '503', 'CV-SELF-CALL'],
    [connectTo(serverPort(8091)), '503', 'CV-APP-REFUSED'],
    [connectTo('nobody.demo.svc.cluster.local:80'), '503', 'CV-SERVICE-UNKNOWN'],
    [connectTo(`${HOST}:80`), '503', 'CV-SERVICE-UNKNOWN'],
    [connectTo(`${HOST}:81`), '503', 'CV-SERVICE-UNKNOWN'],
  ] as const;
  await using peer = await open();
  const mark = mesh().agent('n2').lines.length;
  for (const [i, [order, status, reason]] of cases.entries()) {
    const stream = streamOf(i + 1);
    peer.order(order);
    const response = await peer.event('response', 1, { stream });
    assert.deepEqual([response['headers'], response['ended']], [[[':status', status]], true], JSON.stringify(order));
    const reset = await peer.event('reset', 1, { stream });
    assert.equal(reset['code'], NO_ERROR);
    const isIts = (line: Readonly<Record<string, unknown>>): boolean => line['reason'] === reason;
    await mesh()
      .agent('n2')
      .line(isIts, `${reason} for ${JSON.stringify(order)}`, mark);
  }
  await mesh().update({});
});

test(
  'a CONNECT with :path or :scheme, or without :authority, is reset with PROTOCOL_ERROR; the tunnel goes on',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8081, doubling);
    await using peer = await open();
    const wrong = [
      connectTo(serverPort(8081), [[':path', '/']]),
      connectTo(serverPort(8081), [[':scheme', 'https']]),
      connectTo(serverPort(8081), [[':protocol', 'websocket']]),
      { do: 'connect', headers: [[':method', 'CONNECT']] },
      connectTo(serverPort(8081), [['connection', 'close']]),
      connectTo(serverPort(8081), [['Upper', 'case']]),
    ];
    for (const [i, order] of wrong.entries()) {
      peer.order(order);
      const { code } = await peer.event('reset', 1, { stream: streamOf(i + 1) });
      assert.equal(code, PROTOCOL_ERROR, JSON.stringify(order));
    }
    peer.order(connectTo(serverPort(8081)));
    assert.equal(statusOf(await peer.event('response')), '200');
  },
);

test(
  'headers a peer may add decide nothing: neither forwarded nor baggage nor any other is an identity',
  privileged,
  async () => {
    const rules = [[[{ principals: [{ Exact: 'cluster.local/ns/demo/sa/boss' }] }]]];
    const policy = { name: 'boss', namespace: 'demo', scope: 'Namespace', action: 'Allow', dryRun: false, rules };
    await mesh().update({ policies: [policy] });
    using _app = mesh().serve('server', 8082, doubling);
    await using peer = await open();
    peer.order(
      connectTo(serverPort(8082), [
        ['forwarded', 'for="10.0.0.1:80";by=spiffe://cluster.local/ns/demo/sa/boss'],
        ['baggage', 'k8s.namespace.name=demo,service.name=boss'],
        ['x-forwarded-client-cert', 'URI=spiffe://cluster.local/ns/demo/sa/boss'],
        ['authorization', 'Bearer boss'],
      ]),
    );
    assert.equal(statusOf(await peer.event('response')), '401');
    await using boss = await open(identityOf('boss'));
    boss.order(connectTo(serverPort(8082)));
    assert.equal(statusOf(await boss.event('response')), '200');
    await mesh().update({});
  },
);

test(
  'data that comes with CONNECT waits for the verdict: lost when refused, first in line when allowed',
  privileged,
  async () => {
    const heard: string[] = [];
    using _denied = mesh().serve(
      'server',
      8083,
      (socket) => void socket.on('data', (chunk: Buffer) => heard.push(`denied ${chunk.toString()}`)),
    );
    using _allowed = mesh().serve('server', 8084, doubling);
    const policy = { name: 'no-8083', namespace: 'demo', scope: 'Namespace', action: 'Deny', dryRun: false };
    await mesh().update({ policies: [{ ...policy, rules: [[[{ destinationPorts: [8083] }]]] }] });
    await using peer = await open();
    peer.order({ ...connectTo(serverPort(8083)), data: 'early' });
    assert.equal(statusOf(await peer.event('response')), '401');
    peer.order({ ...connectTo(serverPort(8084)), data: 'early' });
    assert.equal(statusOf(await peer.event('response', 2)), '200');
    assert.equal((await peer.event('data'))['data'], 'earlyearly');
    assert.deepEqual(heard, []);
    await mesh().update({});
  },
);

test('a PING is answered with its own octets', privileged, async () => {
  await using peer = await open();
  peer.order({ do: 'ping', payload: '0102030405060708' });
  assert.equal((await peer.event('pong'))['payload'], '0102030405060708');
});

test(
  'a stopping agent says GOAWAY twice around a PING, and carries the streams in flight to their end',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8085, doubling);
    await using peer = await open();
    peer.order(connectTo(serverPort(8085)));
    await peer.event('response');
    const agent = mesh().agent('n2');

    agent.kill('SIGTERM');

    const first = await peer.event('goaway');
    assert.deepEqual([first['last'], first['code']], [2 ** 31 - 1, NO_ERROR]);
    assert.equal((await peer.event('ping'))['payload'], '0b7ba2f08b9bfe54');
    const second = await peer.event('goaway', 2);
    assert.deepEqual([second['last'], second['code']], [1, NO_ERROR]);
    peer.order({ do: 'data', stream: 1, data: 'still' });
    assert.equal((await peer.event('data'))['data'], 'stillstill');
    peer.order({ do: 'end', stream: 1 });
    await peer.event('end');
    assert.equal(await agent.exited, 0);
    await peer.event('closed');
    await mesh().startAgent('n2');
    using again = await dial(mesh(), 'other', { ip: mesh().pod('server').ip, port: 8085 });
    assert.equal(await again.exchange('hi'), 'hihi');
  },
);

function get() {
  const headers = [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':authority', serverPort(8080)],
    [':path', '/'],
  ];
  return { do: 'connect', headers };
}
