import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inboundVerdict, reauthorize } from '../../../src/model/inbound-verdict.ts';
import { outboundDecision, outboundSelfCall, unknownWorkload } from '../../../src/model/outbound-verdict.ts';
import type { InboundQuestion, OutboundVerdict, PeerLabels } from '../../../src/model/verdict.ts';
import { formatBaggage } from '../../../src/wire/baggage.ts';
import { always, atAddress, memberOf, mesh, policy, SETTINGS, service, vip, workload } from './sample-mesh.ts';

const CLIENT = workload('client', { ips: ['10.0.0.1'], locality: { region: 'r1', zone: 'z1', subzone: '' } });
const SERVER = workload('server', { ips: ['10.0.0.2', 'fd00::2'], services: memberOf({ web: {} }) });
const WEB = service('web', { vips: [vip('10.1.0.1')] });
const MESH = { workloads: [CLIENT, SERVER], services: [WEB] };
const CLIENT_ID = 'spiffe://cluster.local/ns/default/sa/client';
const SERVER_ID = 'spiffe://cluster.local/ns/default/sa/server';

function peer(name: string, fields: Partial<PeerLabels> = {}): PeerLabels {
  return {
    pod: name,
    workload: `${name}-deploy`,
    canonicalName: `${name}-app`,
    canonicalRevision: 'v1',
    app: `${name}-app`,
    namespace: 'default',
    identity: `spiffe://cluster.local/ns/default/sa/${name}`,
    cluster: 'Kubernetes',
    region: '',
    zone: '',
    ...fields,
  };
}

const WEB_LABELS = { hostname: 'web.default.svc.cluster.local', name: 'web', namespace: 'default' };
const CLIENT_LABELS = peer('client', { region: 'r1', zone: 'z1' });

function outbound(state: Parameters<typeof mesh>[0], ip: string, port = 80): OutboundVerdict {
  const question = { podUid: 'u', client: { ip: '10.0.0.1', port: 40_000 }, target: { ip, port } };
  const decision = outboundDecision(mesh(state), CLIENT, question, { settings: SETTINGS, random: always(0) });
  assert(decision.kind === 'verdict');
  return decision.verdict;
}

function inbound(
  fields: Partial<InboundQuestion> & { readonly settings?: Partial<typeof SETTINGS> } = {},
  state: Parameters<typeof mesh>[0] = MESH,
  local = SERVER,
): ReturnType<typeof inboundVerdict> {
  const { settings, ...question } = fields;
  return inboundVerdict(
    mesh(state),
    local,
    {
      podUid: 'u',
      connectionId: 'c',
      peer: { ip: '10.0.0.1', port: 40_000 },
      local: { ip: '10.0.0.2', port: 15_008 },
      ...question,
    },
    { ...SETTINGS, ...settings },
  );
}

const HBONE = { peerIdentity: CLIENT_ID, authority: '10.0.0.2:8080' };

test('an HBONE verdict has everything the tunnel needs', () => {
  assert.deepEqual(outbound(MESH, '10.1.0.1'), {
    kind: 'hbone',
    address: { ip: '10.0.0.2', port: 15_008 },
    authority: '10.0.0.2:8080',
    identity: CLIENT_ID,
    expectedIdentities: [SERVER_ID],
    baggage:
      'k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client-deploy,' +
      'service.name=client-app,service.version=v1,cloud.region=r1,cloud.availability_zone=z1',
    forwarded: 'for="10.0.0.1:40000";host=web.default.svc.cluster.local',
    labels: {
      reporter: 'source',
      source: CLIENT_LABELS,
      destination: peer('server'),
      destinationService: WEB_LABELS,
      securityPolicy: 'mutual_tls',
    },
  });
});

test('traffic to a pod address has no host in the forwarded header', () => {
  const verdict = outbound(MESH, '10.0.0.2');
  assert(verdict.kind === 'hbone');
  assert.equal(verdict.forwarded, 'for="10.0.0.1:40000"');
  assert.equal(verdict.labels.destinationService, undefined);
});

test('plaintext to a known workload names it but proves no source', () => {
  const plain = workload('plain', { ips: ['10.0.0.3'], protocol: 'TCP' });
  assert.deepEqual(outbound({ workloads: [plain] }, '10.0.0.3'), {
    kind: 'plaintext',
    address: { ip: '10.0.0.3', port: 80 },
    labels: {
      reporter: 'source',
      source: { ...CLIENT_LABELS, identity: '' },
      destination: peer('plain'),
      securityPolicy: 'unknown',
    },
  });
});

test('plaintext to an unknown address knows nothing about the destination', () => {
  const verdict = outbound({}, '192.0.2.1');
  assert(verdict.kind === 'plaintext');
  assert.deepEqual(verdict.labels, {
    reporter: 'source',
    source: { ...CLIENT_LABELS, identity: '' },
    securityPolicy: 'unknown',
  });
});

test('through a waypoint the destination is the waypoint and the service the one meant', () => {
  const verdict = outbound(
    {
      workloads: [SERVER, workload('waypoint', { ips: ['10.0.0.9'] })],
      services: [{ ...WEB, waypoint: atAddress('10.0.0.9') }],
    },
    '10.1.0.1',
  );
  assert(verdict.kind === 'hbone');
  assert.equal(verdict.labels.destination?.pod, 'waypoint');
  assert.deepEqual(verdict.labels.destinationService, WEB_LABELS);
  assert.equal(verdict.forwarded, 'for="10.0.0.1:40000";host=web.default.svc.cluster.local');
});

test('a refused outbound connection has no labels, so that it is not counted', () => {
  assert.deepEqual(outbound({ services: [WEB] }, '10.1.0.1'), {
    kind: 'refuse',
    refusal: { code: 'CV-NO-ENDPOINT', text: 'no healthy upstream: 10.1.0.1:80' },
  });
});

for (const [ip, port, isRefused] of [
  ['127.0.0.1', 15_001, true],
  ['127.1.2.3', 15_008, true],
  ['::1', 15_006, true],
  ['127.0.0.1', 8_080, false],
  ['10.0.0.1', 15_001, false],
] as const) {
  test(`an application that dials ${ip} port ${port} is ${isRefused ? 'refused' : 'not taken for a self-call'}`, () => {
    const refusal = outboundSelfCall({ ip, port }, SETTINGS);
    assert.equal(refusal?.code, isRefused ? 'CV-SELF-CALL' : undefined);
    assert.equal(outbound({}, ip, port).kind, isRefused ? 'refuse' : 'plaintext');
  });
}

test('an unknown local workload is named by account, namespace and pod', () => {
  assert.deepEqual(unknownWorkload({ name: 'p', namespace: 'n', serviceAccount: 's' }), {
    code: 'CV-WORKLOAD-UNKNOWN',
    text: 'failed to fetch information about local workload: s.n (p)',
  });
});

test('an accepted HBONE connection goes to the application from the address of its client', () => {
  const { verdict, tracked } = inbound({ hbone: HBONE });
  assert.deepEqual(verdict, {
    kind: 'accept',
    address: { ip: '10.0.0.2', port: 8_080 },
    sourceIp: '10.0.0.1',
    responseBaggage:
      'k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=server-deploy,' +
      'service.name=server-app,service.version=v1',
    labels: {
      reporter: 'destination',
      source: CLIENT_LABELS,
      destination: peer('server'),
      destinationService: WEB_LABELS,
      securityPolicy: 'mutual_tls',
    },
  });
  assert.deepEqual(tracked, {
    source: { ip: '10.0.0.1', port: 40_000 },
    sourceIdentity: CLIENT_ID,
    destination: { ip: '10.0.0.2', port: 8_080 },
    workload: SERVER,
  });
});

test('an accepted plaintext connection proves nobody and answers no baggage', () => {
  const { verdict } = inbound({ local: { ip: '10.0.0.2', port: 8_080 } });
  assert.deepEqual(verdict, {
    kind: 'accept',
    address: { ip: '10.0.0.2', port: 8_080 },
    sourceIp: '10.0.0.1',
    labels: {
      reporter: 'destination',
      source: { ...CLIENT_LABELS, identity: '' },
      destination: peer('server'),
      destinationService: WEB_LABELS,
      securityPolicy: 'unknown',
    },
  });
});

test('plaintext to one of the own ports is refused on any address', () => {
  const { verdict, tracked } = inbound({ local: { ip: '10.0.0.2', port: 15_001 } });
  assert.deepEqual(verdict, {
    kind: 'refuse',
    refusal: { code: 'CV-SELF-CALL', text: 'attempted recursive call to ourselves' },
  });
  assert.equal(tracked, undefined);
});

test('a policy refusal has labels, so that it is counted and logged in full', () => {
  const { verdict } = inbound({ hbone: HBONE }, { ...MESH, policies: [policy('none', { rules: [] })] });
  assert(verdict.kind === 'refuse');
  assert.deepEqual(verdict.refusal, {
    code: 'CV-POLICY-NOT-ALLOWED',
    text: 'connection closed due to policy rejection: allow policies exist, but none allowed',
  });
  assert.equal(verdict.labels?.source?.identity, CLIENT_ID);
});

test('a refusal before policies has no labels', () => {
  const { verdict } = inbound({ hbone: { ...HBONE, authority: '10.0.0.77:80' } });
  assert.deepEqual(verdict, {
    kind: 'refuse',
    refusal: { code: 'CV-IP-MISMATCH', text: 'ip mismatch: 10.0.0.2 != 10.0.0.77' },
  });
});

test('a pod that calls itself keeps the address the kernel chooses', () => {
  const { verdict } = inbound({ peer: { ip: '10.0.0.2', port: 1 }, hbone: HBONE });
  assert(verdict.kind === 'accept');
  assert.equal(verdict.sourceIp, undefined);
});

test('without ENABLE_ORIG_SRC no address is spoofed', () => {
  const { verdict } = inbound({ hbone: HBONE, settings: { isOrigSrcEnabled: false } });
  assert(verdict.kind === 'accept');
  assert.equal(verdict.sourceIp, undefined);
});

test('a PROXY tunnel gets a header with peer, original target and identity, and no spoofed source on loopback', () => {
  const waypoint = workload('waypoint', {
    ips: ['10.0.0.9'],
    applicationTunnel: { protocol: 'PROXY', port: 15_088 },
  });
  const question = { local: { ip: '10.0.0.9', port: 15_008 }, hbone: { ...HBONE, authority: '10.1.0.1:80' } };
  const { verdict, tracked } = inbound(question, MESH, waypoint);
  assert(verdict.kind === 'accept');
  assert.deepEqual(verdict.address, { ip: '127.0.0.1', port: 15_088 });
  assert.equal(verdict.sourceIp, undefined);
  assert.deepEqual(verdict.proxyHeader, {
    source: { ip: '10.0.0.1', port: 40_000 },
    destination: { ip: '10.1.0.1', port: 80 },
    identity: CLIENT_ID,
  });
  assert.deepEqual(tracked?.destination, { ip: '10.0.0.9', port: 80 });
  const onPod = inbound({ ...question, settings: { isLocalhostAppTunnelEnabled: false } }, MESH, waypoint).verdict;
  assert(onPod.kind === 'accept');
  assert.equal(onPod.sourceIp, '10.0.0.1');
});

test('response baggage is answered only when enabled', () => {
  const { verdict } = inbound({ hbone: HBONE, settings: { isResponseBaggageEnabled: false } });
  assert(verdict.kind === 'accept');
  assert.equal(verdict.responseBaggage, undefined);
});

const FOREIGN_BAGGAGE = formatBaggage({
  cluster: 'far',
  namespace: 'there',
  workloadType: 'deployment',
  workloadName: 'their-deploy',
  serviceName: 'their-app',
  serviceVersion: 'v9',
  region: 'r9',
  zone: 'z9',
});
const FOREIGN = {
  pod: 'their-deploy',
  workload: 'their-deploy',
  canonicalName: 'their-app',
  canonicalRevision: 'v9',
  app: 'their-deploy',
  namespace: 'there',
  identity: CLIENT_ID,
  cluster: 'far',
  region: 'r9',
  zone: 'z9',
};
const IDENTITY_ONLY = {
  pod: '',
  workload: '',
  canonicalName: '',
  canonicalRevision: '',
  app: '',
  namespace: '',
  identity: CLIENT_ID,
  cluster: '',
  region: '',
  zone: '',
};

const sources: readonly [claim: string, question: Parameters<typeof inbound>[0], want: PeerLabels | undefined][] = [
  ['the address decides over baggage', { hbone: { ...HBONE, baggage: [FOREIGN_BAGGAGE] } }, CLIENT_LABELS],
  [
    'an unknown address is described by baggage',
    { peer: { ip: '10.0.9.9', port: 1 }, hbone: { ...HBONE, baggage: [FOREIGN_BAGGAGE] } },
    FOREIGN,
  ],
  [
    'a request from another network is described by baggage, never by the address of its gateway',
    { hbone: { ...HBONE, baggage: [FOREIGN_BAGGAGE], forwardedNetwork: 'far' } },
    FOREIGN,
  ],
  [
    'the own network in any case of letters is not another network',
    { hbone: { ...HBONE, baggage: [FOREIGN_BAGGAGE], forwardedNetwork: 'NET' }, settings: { network: 'net' } },
    CLIENT_LABELS,
  ],
  [
    'baggage is not believed when it is switched off',
    {
      hbone: { ...HBONE, baggage: [FOREIGN_BAGGAGE], forwardedNetwork: 'far' },
      settings: { isResponseBaggageEnabled: false },
    },
    IDENTITY_ONLY,
  ],
  ['an unknown plaintext client is nobody', { peer: { ip: '10.0.9.9', port: 1 } }, undefined],
  [
    'a certificate without identity leaves the address to tell',
    { hbone: { authority: HBONE.authority } },
    { ...CLIENT_LABELS, identity: '' },
  ],
];

for (const [claim, question, want] of sources) {
  test(claim, () => {
    const local = question?.hbone === undefined ? { local: { ip: '10.0.0.2', port: 8_080 } } : {};
    const { verdict } = inbound({ ...local, ...question });
    assert(verdict.kind === 'accept');
    assert.deepEqual(verdict.labels.source, want);
  });
}

const GUESS_MESH = {
  workloads: [CLIENT],
  services: [
    service('first', { ports: new Map([[80, 8_080]]) }),
    service('second', { ports: new Map([[80, 8_080]]) }),
    service('official', { ports: new Map([[80, 8_080]]), canonical: true }),
    service('mapped', { ports: new Map([[80, 0]]) }),
    service('foreign', { ports: new Map([[80, 8_080]]) }),
  ],
};
const GUESSED = workload('guessed', {
  ips: ['10.0.0.2'],
  services: memberOf({ first: {}, second: {}, official: {}, mapped: { 80: 7_070 } }),
});

const guesses: readonly [claim: string, forwarded: string | undefined, authority: string, want: string | undefined][] =
  [
    [
      'the forwarded host names the service',
      'for="1.1.1.1:1";host=second.default.svc.cluster.local',
      '10.0.0.2:8080',
      'second',
    ],
    [
      'a forwarded host of a service the pod is not in is not believed',
      'host=foreign.default.svc.cluster.local',
      '10.0.0.2:8080',
      'official',
    ],
    ['without it the canonical service on that target port is meant', undefined, '10.0.0.2:8080', 'official'],
    ['the port of the endpoint counts too', undefined, '10.0.0.2:7070', 'mapped'],
    ['a port of no service is no service', undefined, '10.0.0.2:9999', undefined],
    [
      'a host name authority is the service, whatever was forwarded',
      'host=second.default.svc.cluster.local',
      'first.default.svc.cluster.local:80',
      'first',
    ],
  ];

for (const [claim, forwarded, authority, want] of guesses) {
  test(claim, () => {
    const hbone = { peerIdentity: CLIENT_ID, authority, ...(forwarded !== undefined && { forwarded }) };
    const { verdict } = inbound({ hbone }, GUESS_MESH, GUESSED);
    assert(verdict.kind === 'accept');
    assert.equal(verdict.labels.destinationService?.name, want);
  });
}

test('a policy that now forbids a live connection closes it; one that does not leaves it', () => {
  const { tracked } = inbound({ hbone: HBONE });
  assert(tracked !== undefined);
  assert.equal(reauthorize(mesh(MESH), tracked), undefined);
  const denied = mesh({ ...MESH, policies: [policy('no', { action: 'Deny', rules: [[]] })] });
  assert.deepEqual(reauthorize(denied, tracked), {
    code: 'CV-POLICY-CHANGED',
    text: 'connection closed due to policy change',
  });
});

test('a policy that a new record of the workload attaches closes its live connections', () => {
  const { tracked } = inbound({ hbone: HBONE });
  assert(tracked !== undefined);
  const no = policy('no', { scope: 'WorkloadSelector', action: 'Deny', rules: [[]] });
  const attached = { ...SERVER, authorizationPolicies: ['default/no'] };
  assert.equal(reauthorize(mesh({ ...MESH, policies: [no] }), tracked), undefined);
  const selecting = mesh({ ...MESH, workloads: [CLIENT, attached], policies: [no] });
  assert.equal(reauthorize(selecting, tracked)?.code, 'CV-POLICY-CHANGED');
});

test('a connection is re-judged for the workload it came to, even when that is gone from the mesh', () => {
  const selected = { ...SERVER, authorizationPolicies: ['default/no'] };
  const { tracked } = inbound({ hbone: HBONE }, MESH, selected);
  assert(tracked !== undefined);
  assert.equal(reauthorize(mesh({}), tracked), undefined);
  const no = policy('no', { scope: 'WorkloadSelector', action: 'Deny', rules: [[]] });
  assert.equal(reauthorize(mesh({ policies: [no] }), tracked)?.code, 'CV-POLICY-CHANGED');
});
