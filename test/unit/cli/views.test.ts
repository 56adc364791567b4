import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { parse } from 'yaml';
import type { StatusView } from '../../../src/agent/admin/views.ts';
import { inbound, outbound, trafficFixture } from '../telemetry/traffic-fixture.ts';
import { culvert, DUMP, fakeAgent } from './cli-fixture.ts';

const STATUS: StatusView = {
  node: 'node-1',
  version: '0.1.0',
  startedAt: '2026-03-02T10:58:59Z',
  uptimeSeconds: 3_661,
  isReady: false,
  pending: ['workload proxy manager'],
  listeners: [{ component: 'admin', address: '127.0.0.1:15000' }],
  enrolment: { source: 'CNI agent at /run/zds.sock' },
  pods: [
    { uid: 'u1', name: 'shop', namespace: 'retail', serviceAccount: 'shop', state: 'Up', repairs: 0 },
    {
      uid: 'u2',
      name: 'db',
      namespace: 'infra',
      serviceAccount: 'db',
      state: 'Pending',
      lastError: { code: 'CV-NETNS', message: '/run/netns/x: no such file' },
      repairs: 2,
    },
  ],
  mesh: {
    source: '/etc/mesh.yaml',
    lastLoadAt: '2026-03-02T10:59:00Z',
    lastError: '/etc/mesh.yaml:7: unknown field "nmae"',
    workloads: 4,
    services: 1,
    policies: 2,
    rejectedPolicies: 1,
  },
  certificates: { source: 'embedded CA /ca', total: 2, unavailable: 0, soonestExpiry: '2026-03-03T13:00:00Z' },
  connections: { live: 1, opened: 30, refused: { 'CV-IO': 1, 'CV-POLICY-DENY': 2 } },
  workers: [{ name: 'main', state: 'running', connections: 1, restarts: 0 }],
  handOver: { holdMs: 3_600_000, holdMemoryMib: 512, held: [] },
};

const STATUS_TEXT = `Node           node-1
Version        0.1.0
Uptime         1h1m (since 2026-03-02T10:58:59Z)
Ready          no, pending: workload proxy manager
Enrolment      CNI agent at /run/zds.sock
Pods           1 up, 1 pending
Mesh source    /etc/mesh.yaml, loaded 2026-03-02T10:59:00Z
Mesh error     /etc/mesh.yaml:7: unknown field "nmae"
Mesh state     4 workloads, 1 service, 2 policies (1 rejected, see culvert policies)
Certificates   2 from embedded CA /ca, soonest expiry 2026-03-03T13:00:00Z (in 1d1h)
Connections    1 open, 30 since the start, 3 refused or cut

NAMESPACE   POD NAME   SERVICE ACCOUNT   STATE     REPAIRS   LAST ERROR
retail      shop       shop              Up        0
infra       db         db                Pending   2         CV-NETNS: /run/netns/x: no such file

LISTENER   ADDRESS
admin      127.0.0.1:15000

REFUSED          COUNT   CAUSE (culvert explain <code>)
CV-POLICY-DENY   2       a DENY policy matches this connection
CV-IO            1       a socket failed in the middle of the connection

WORKER   STATE     CONNECTIONS
main     running   1
`;

for (const [controlPlane, text] of [
  [{ isConnected: true, isComplete: true, isBehind: false }, 'connected, complete'],
  [{ isConnected: false, isComplete: false, isBehind: false }, 'not connected, not told yet'],
  [{ isConnected: false, isComplete: true, isBehind: true }, 'not connected, last good state, an update was refused'],
] as const) {
  test(`status says of a control plane: ${text}`, async () => {
    const mesh = { source: 'control plane https://istiod:15012', controlPlane, workloads: 0, services: 0, policies: 0 };
    await using agent = await fakeAgent({ '/status': { ...STATUS, mesh } });
    const { out } = await agent.ask(['status']);
    assert.match(out, new RegExp(`^Mesh source {4}control plane https://istiod:15012, ${text}$`, 'm'));
  });
}

test('status is one page: facts, pods, listeners, refusals, workers', async () => {
  await using agent = await fakeAgent({ '/status': STATUS });
  assert.deepEqual(await agent.ask(['status']), { code: 0, out: STATUS_TEXT, err: '' });
});

test('status says that the CNI agent is away, and which pods go past the agent', async () => {
  const enrolment = { source: 'CNI agent at /run/zds.sock', lastError: 'no CNI agent answers' };
  const notRedirected = [{ direction: 'outbound', text: 'IPv4 connections that the pod makes' }];
  const pods = STATUS.pods.slice(0, 1).map((pod) => ({ ...pod, notRedirected }));
  await using agent = await fakeAgent({ '/status': { ...STATUS, enrolment, pods } });
  const { out } = await agent.ask(['status']);
  assert.match(out, /^Enrolment error {3}no CNI agent answers$/m);
  assert.match(out, /shop +Up +0 +CV-NOT-REDIRECTED: IPv4 connections that the pod makes$/m);
});

test('status names each agent before this one that still carries connections', async () => {
  const since = { since: '2026-03-02T11:00:00Z', until: '2026-03-02T12:00:00Z' };
  const held = [
    { pid: 17, version: '1.1.0', connections: 2, ...since },
    { pid: 16, version: '1.0.0', connections: 1, ...since },
  ];
  await using agent = await fakeAgent({ '/status': { ...STATUS, handOver: { ...STATUS.handOver, held } } });
  const { out } = await agent.ask(['status']);
  assert.match(out, /^Held +2 connections by the former agent, process 17 \(1\.1\.0\), since 2026-03-02T11:00:00Z,/m);
  assert.match(out, /^Held +1 connection by the former agent, process 16 /m);
});

test('status in short is its facts alone', async () => {
  await using agent = await fakeAgent({ '/status': STATUS });
  const { out } = await agent.ask(['status', '-o', 'short']);
  assert.equal(out, STATUS_TEXT.slice(0, STATUS_TEXT.indexOf('\n\n') + 1));
});

test('status of one namespace shows its pods only', async () => {
  await using agent = await fakeAgent({ '/status': STATUS });
  const { out } = await agent.ask(['status', '-n', 'infra', '-o', 'json']);
  assert.deepEqual(
    JSON.parse(out).pods.map(({ name }: { name: string }) => name),
    ['db'],
  );
});

const tables: readonly { claim: string; argv: readonly string[]; want: string }[] = [
  {
    claim: 'workloads are sorted by namespace and name; a waypoint is a service name, None or NA',
    argv: ['workloads'],
    want: `NAMESPACE   POD NAME   ADDRESS             NODE   WAYPOINT   PROTOCOL
infra       dns        dns.example                NA         TCP
retail      cart-0     10.42.2.9           n2     None       HBONE
retail      shop-1     10.42.1.7,fd00::7   n1     waypoint   HBONE
`,
  },
  {
    claim: 'workloads of one namespace and node',
    argv: ['workloads', '--namespace', 'retail', '--node', 'n2'],
    want: `NAMESPACE   POD NAME   ADDRESS     NODE   WAYPOINT   PROTOCOL
retail      cart-0     10.42.2.9   n2     None       HBONE
`,
  },
  {
    claim: 'a namespace without policies is not called one without rules',
    argv: ['policies', '-n', 'nowhere'],
    want: 'No policies found in namespace nowhere; those of the whole mesh apply there too.\n',
  },
  {
    claim: 'a workload is found by its address however that is spelt',
    argv: ['workloads', '--address', 'FD00:0::7'],
    want: `NAMESPACE   POD NAME   ADDRESS             NODE   WAYPOINT   PROTOCOL
retail      shop-1     10.42.1.7,fd00::7   n1     waypoint   HBONE
`,
  },
  { claim: 'no workload is said so', argv: ['workloads', '--address', '1.2.3.4'], want: 'No workloads found.\n' },
  {
    claim: 'services count the endpoints whose workload is healthy',
    argv: ['services'],
    want: `NAMESPACE   SERVICE NAME   SERVICE VIP   WAYPOINT   ENDPOINTS
retail      cart           10.96.0.12    waypoint   1/2
retail      waypoint       10.96.0.99    None       0/0
`,
  },
  {
    claim: 'policies show what is enforced, tried and rejected',
    argv: ['policies'],
    want: `NAMESPACE   POLICY NAME   ACTION   SCOPE              STATUS
infra       odd           Deny     WorkloadSelector   Rejected: port 70000 is over 65535
infra       try           Allow    Global             Dry run
retail      no-9999       Deny     Namespace          Enforced
`,
  },
  {
    claim: 'certificates have a row for the leaf, each intermediate and each root, or one that says there is none',
    argv: ['certificates'],
    want: `CERTIFICATE NAME                           TYPE           STATUS        VALID CERT   SERIAL NUMBER   NOT AFTER              NOT BEFORE
spiffe://cluster.local/ns/retail/sa/shop   Leaf           Available     true         277909b         2026-03-03T08:00:00Z   2026-03-02T07:58:00Z
spiffe://cluster.local/ns/retail/sa/shop   Intermediate   Available     false        ff              2026-03-02T00:00:00Z   2026-03-01T00:00:00Z
spiffe://cluster.local/ns/retail/sa/shop   Root           Available     true         1               2036-01-01T00:00:00Z   2026-01-01T00:00:00Z
spiffe://cluster.local/ns/retail/sa/cart   NA             Unavailable   false        NA              NA                     NA
`,
  },
];

for (const { claim, argv, want } of tables) {
  test(claim, async () => {
    await using agent = await fakeAgent({ '/config_dump': DUMP });
    assert.deepEqual(await agent.ask(argv), { code: 0, out: want, err: '' });
  });
}

for (const [command, wanted] of [
  ['policies', 'section=policies'],
  ['workloads', 'section=workloads&section=services'],
  ['services', 'section=services&section=workloads'],
  ['certificates', 'section=certificates'],
] as const) {
  test(`${command} asks for no more of the dump than it shows`, async () => {
    await using agent = await fakeAgent({ '/config_dump': DUMP });
    await agent.ask([command]);
    assert.equal(agent.asked[0], `GET /config_dump?${wanted}`);
  });
}

test('certificates say where they come from, what is revoked, and why an identity has none', async () => {
  const [shop, cart] = DUMP.certificates;
  const lastError = 'CV-CA-AUTH: Istio CA https://istiod.istio-system.svc:15012: no (UNAUTHENTICATED)';
  const revocation = { path: '/crl.pem', lists: 1, revoked: 3, loadedAt: '2026-03-02T11:00:00Z' };
  await using agent = await fakeAgent({
    '/config_dump': { certificates: [{ ...shop, certChain: [], rootCerts: [] }, cart] },
    '/certificates': {
      source: 'Istio CA https://istiod.istio-system.svc:15012',
      revocation,
      identities: [
        { identity: shop.identity, state: 'Available', nextTryAt: '2026-03-02T20:00:00Z' },
        { identity: cart.identity, state: cart.state, lastError, failures: 3, nextTryAt: '2026-03-02T12:00:07Z' },
      ],
    },
  });
  const { out } = await agent.ask(['certificates']);
  assert.equal(
    out,
    `Source       Istio CA https://istiod.istio-system.svc:15012
Revocation   /crl.pem, 3 revoked on 1 list, loaded 2026-03-02T11:00:00Z

CERTIFICATE NAME                           TYPE   STATUS        VALID CERT   SERIAL NUMBER   NOT AFTER   NOT BEFORE   NEXT TRY               LAST ERROR
spiffe://cluster.local/ns/retail/sa/shop   NA     Available     false        NA              NA          NA
spiffe://cluster.local/ns/retail/sa/cart   NA     Unavailable   false        NA              NA          NA           2026-03-02T12:00:07Z   ${lastError}
`,
  );
  const [, row] = JSON.parse((await agent.ask(['certificates', '-o', 'json'])).out) as Record<string, unknown>[];
  assert.deepEqual([row?.['lastError'], row?.['nextTryAt']], [lastError, '2026-03-02T12:00:07Z']);
});

test('a revocation list that was refused is shown with the reason', async () => {
  const revocation = { path: '/crl.pem', lists: 0, revoked: 0, lastError: 'revocation list is neither PEM nor DER' };
  const certificates = { ...STATUS.certificates, unavailable: 1, lastError: 'CV-CA: no', revocation };
  await using agent = await fakeAgent({ '/status': { ...STATUS, certificates } });
  const { out } = await agent.ask(['status']);

  assert.match(out, /^Certificates +2 from embedded CA \/ca, 1 unavailable, soonest expiry/m);
  assert.match(out, /^Certificate error +CV-CA: no$/m);
  assert.match(out, /^Revocation +\/crl\.pem, never loaded; refused: revocation list is neither PEM nor DER$/m);
});

test('json and yaml print the data of the agent as it is', async () => {
  await using agent = await fakeAgent({ '/config_dump': DUMP });
  assert.deepEqual(JSON.parse((await agent.ask(['policies', '-o', 'json', '-n', 'retail'])).out), [DUMP.policies[0]]);
  assert.deepEqual(parse((await agent.ask(['certificates', '-o', 'yaml'])).out), DUMP.certificates);
});

function connections() {
  const { traffic, clock } = trafficFixture();
  traffic.open(outbound).addClientBytes(5_000);
  traffic.open(inbound).addServerBytes(22);
  traffic.open({ ...outbound, id: 'c-9' }).close({ code: 'CV-POLICY-DENY', text: 'denied by\u001b[31m retail/no' });
  traffic.refused({
    direction: 'outbound',
    podUid: 'pod-1',
    src: { ip: '10.42.1.7', port: 1 },
    dst: { ip: '10.0.0.1', port: 15_008 },
    refusal: { code: 'CV-SELF-CALL', text: 'attempted recursive call to ourselves' },
  });
  clock.advance(3_723_000);
  return {
    '/connections': { open: traffic.live(), refused: traffic.recentRefusals() },
    '/config_dump': DUMP,
    '/explain': { connection: traffic.find('c-9') },
  };
}

test('connections name the workloads and services behind addresses, and nobody makes a dump for it', async () => {
  await using agent = await fakeAgent(connections());
  const { out } = await agent.ask(['connections']);
  assert.equal(
    out,
    `WORKLOAD                      DIRECTION   LOCAL                               REMOTE                              REMOTE TARGET                      PROTOCOL   AGE    SENT      RECEIVED   ID
cart-0.retail                 inbound     cart-0.retail:8080                  shop-6d9f7c5b8-x2x9q.retail:51840   10.96.0.12:80                      HBONE      1h2m   0 B       22 B       c-2
shop-6d9f7c5b8-x2x9q.retail   outbound    shop-6d9f7c5b8-x2x9q.retail:51840   cart-0.retail:15008                 cart.retail.svc.cluster.local:80   HBONE      1h2m   4.9 KiB   0 B        c-1
`,
  );
  await agent.ask(['connections', '--refused']);
  assert.deepEqual(agent.asked, ['GET /connections', 'GET /connections']);
});

test('raw connections show addresses', async () => {
  await using agent = await fakeAgent(connections());
  const { out } = await agent.ask(['connections', '--raw', '--direction', 'outbound']);
  assert.equal(
    out,
    `WORKLOAD                      DIRECTION   LOCAL             REMOTE            REMOTE TARGET   PROTOCOL   AGE    SENT      RECEIVED   ID
shop-6d9f7c5b8-x2x9q.retail   outbound    10.42.1.7:51840   10.42.2.9:15008   10.96.0.12:80   HBONE      1h2m   4.9 KiB   0 B        c-1
`,
  );
});

test('refused connections are listed newest first, and what a peer wrote cannot move the cursor', async () => {
  await using agent = await fakeAgent(connections());
  const { out } = await agent.ask(['connections', '--refused', '--raw'], { isTty: true });
  const plain = stripVTControlCharacters(out);
  assert.equal(
    plain,
    `WORKLOAD                      DIRECTION   SOURCE            DESTINATION      REASON           OPENED                 ID        ERROR
pod-1                         outbound    10.42.1.7:1       10.0.0.1:15008   CV-SELF-CALL     2026-01-01T00:00:00Z   early-1   attempted recursive call to ourselves
shop-6d9f7c5b8-x2x9q.retail   outbound    10.42.1.7:51840   10.96.0.12:80    CV-POLICY-DENY   2026-01-01T00:00:00Z   c-9       denied by\\u{1b}[31m retail/no
`,
  );
});

test('colours are for terminals without NO_COLOR', async () => {
  await using agent = await fakeAgent({ '/status': STATUS });
  assert((await agent.ask(['status'], { isTty: true })).out.includes('\u001b[31mno, pending'));
  assert.equal((await agent.ask(['status'], { isTty: true, env: { NO_COLOR: '1' } })).out, STATUS_TEXT);
});

test('a colourful table has the same layout as a plain one', async () => {
  await using agent = await fakeAgent({ '/status': STATUS });
  const { out } = await agent.ask(['status'], { isTty: true });
  assert.equal(stripVTControlCharacters(out).replaceAll(/ +$/gm, ''), STATUS_TEXT);
});

test('the admin address can come from the environment of the process', async () => {
  await using agent = await fakeAgent({ '/config_dump': DUMP });
  process.env['CULVERT_ADMIN'] = agent.admin;
  try {
    assert.equal((await culvert(['services'])).code, 0);
  } finally {
    delete process.env['CULVERT_ADMIN'];
  }
});

test('a cluster of 200,000 workloads is listed', async () => {
  const workloads = Array.from({ length: 200_000 }, (_, n) => ({ uid: `u${n}`, name: `w${n}`, namespace: 'ns' }));
  await using agent = await fakeAgent({ '/config_dump': { workloads } });
  const { code, out, err } = await agent.ask(['workloads', '-o', 'short']);
  assert.deepEqual([code, err], [0, '']);
  assert.equal(out.split('\n').length, 200_002);
});
