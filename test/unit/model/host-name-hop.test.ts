import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MeshState } from '../../../src/model/mesh-index.ts';
import { nextHop } from '../../../src/model/next-hop.ts';
import { outboundDecision } from '../../../src/model/outbound-verdict.ts';
import type { Workload } from '../../../src/model/workload.ts';
import {
  always,
  atAddress,
  atHostname,
  memberOf,
  mesh,
  SETTINGS,
  seeded,
  service,
  vip,
  workload,
} from './sample-mesh.ts';

const CLIENT = workload('client', { ips: ['10.0.0.1', 'fd00::1'] });
const VIPS = [vip('10.1.0.1'), vip('fd00:1::1')];
const id = (name: string): string => `spiffe://cluster.local/ns/default/sa/${name}`;

function external(fields: Partial<Workload> = {}): Workload {
  return workload('external', {
    hostname: 'db.example.com',
    protocol: 'TCP',
    services: memberOf({ web: {} }),
    ...fields,
  });
}

interface Row {
  readonly name: string;
  readonly state: Partial<MeshState>;
  readonly target?: string;
  /** What the host name resolves to. */
  readonly ips: readonly string[];
  /** `kind address port`, then the identities that are accepted, or the reason to refuse. */
  readonly want: string;
}

const WEB = service('web', { vips: VIPS });

const rows: readonly Row[] = [
  {
    name: 'an endpoint without HBONE is dialled in plaintext at the address its name has',
    state: { workloads: [external()], services: [WEB] },
    ips: ['192.0.2.1'],
    want: 'plaintext 192.0.2.1 8080',
  },
  {
    name: 'an endpoint with HBONE is tunnelled to there, never sent in clear',
    state: { workloads: [external({ protocol: 'HBONE' })], services: [WEB] },
    ips: ['192.0.2.1'],
    want: `hbone 192.0.2.1 15008 ${id('external')}`,
  },
  {
    name: 'of both families that of the client is taken',
    state: { workloads: [external()], services: [WEB] },
    target: 'fd00:1::1',
    ips: ['192.0.2.1', '2001:db8::1'],
    want: 'plaintext 2001:db8::1 8080',
  },
  {
    name: 'the other family is better than none',
    state: { workloads: [external()], services: [WEB] },
    target: 'fd00:1::1',
    ips: ['192.0.2.1'],
    want: 'plaintext 192.0.2.1 8080',
  },
  {
    name: 'a service of one family takes no address of the other',
    state: { workloads: [external()], services: [service('web', { vips: VIPS, ipFamilies: 'IPv6' })] },
    ips: ['192.0.2.1', '2001:db8::1'],
    want: 'plaintext 2001:db8::1 8080',
  },
  {
    name: 'a name without any address refuses',
    state: { workloads: [external()], services: [WEB] },
    ips: [],
    want: 'CV-NO-ADDRESS ip addresses were resolved for workload Kubernetes//Pod/default/external, but valid dns response had no A/AAAA records',
  },
  {
    name: 'a name that leads to a pod of the mesh is reached over HBONE, as that pod',
    state: { workloads: [external(), workload('pod', { ips: ['10.0.0.7'] })], services: [WEB] },
    ips: ['10.0.0.7'],
    want: `hbone 10.0.0.7 15008 ${id('pod')}`,
  },
  {
    name: 'a name that leads to a service of the mesh is reached as that service is, its endpoints over HBONE',
    state: {
      workloads: [external(), workload('pod', { ips: ['10.0.0.7'], services: memberOf({ inner: {} }) })],
      services: [WEB, service('inner', { vips: [vip('10.1.0.5')], ports: new Map([[8_080, 9_090]]) })],
    },
    ips: ['10.1.0.5'],
    want: `hbone 10.0.0.7 15008 ${id('pod')}`,
  },
  {
    name: 'a name that leads to a service with a waypoint goes through the waypoint',
    state: {
      workloads: [external(), workload('wp', { ips: ['10.0.0.9'], hostname: 'wp' })],
      services: [WEB, service('inner', { vips: [vip('10.1.0.5')], waypoint: atHostname('wp') })],
    },
    ips: ['10.1.0.5'],
    want: `hbone 10.0.0.9 15008 ${id('wp')}`,
  },
  {
    name: 'a name that has the address of its own service, as outside of the mesh, is dialled there',
    state: { workloads: [external()], services: [service('web', { vips: VIPS, ports: new Map([[80, 80]]) })] },
    ips: ['10.1.0.1'],
    want: 'plaintext 10.1.0.1 80',
  },
  {
    name: 'a waypoint known by host name alone is dialled at the address its name has',
    state: {
      workloads: [workload('wp', { hostname: 'wp.example.com' })],
      services: [service('web', { vips: VIPS, waypoint: atHostname('wp.example.com') })],
    },
    ips: ['192.0.2.1'],
    want: `hbone 192.0.2.1 15008 ${id('wp')}`,
  },
  {
    name: 'a gateway known by host name alone is dialled at the address its name has',
    state: {
      workloads: [
        workload('far', {
          network: 'far',
          services: memberOf({ web: {} }),
          networkGateway: atHostname('gw.example.com'),
        }),
        workload('gw', { hostname: 'gw.example.com' }),
      ],
      services: [service('web', { vips: VIPS, subjectAltNames: [id('web')] })],
    },
    ips: ['192.0.2.1'],
    want: `double-hbone 192.0.2.1 15008 ${id('gw')}`,
  },
];

for (const { name, state, target = '10.1.0.1', ips, want } of rows) {
  test(name, () => {
    const request = { source: CLIENT, clientIp: '10.0.0.1', target: { ip: target, port: 80 } };
    const hop = nextHop(mesh(state), request, always(0));
    assert(hop.kind === 'resolve', hop.kind);
    const settled = hop.withAddresses(ips);
    if (settled.kind === 'refuse') {
      assert.equal(`${settled.refusal.code} ${settled.refusal.text}`, want);
      return;
    }
    const expected = settled.kind === 'plaintext' ? [] : settled.expectedIdentities;
    assert.equal([settled.kind, settled.address.ip, settled.address.port, ...expected].join(' '), want);
  });
}

test('connections are spread over all addresses of the family', () => {
  const index = mesh({ workloads: [external()], services: [WEB] });
  const random = seeded(4);
  const seen = new Set<string>();
  for (let i = 0; i < 100; i++) {
    const target = { ip: '10.1.0.1', port: 80 };
    const hop = nextHop(index, { source: CLIENT, clientIp: '10.0.0.1', target }, random);
    const settled = hop.kind === 'resolve' ? hop.withAddresses(['192.0.2.1', '2001:db8::1', '192.0.2.2']) : hop;
    if (settled.kind === 'plaintext') seen.add(settled.address.ip);
  }
  assert.deepEqual([...seen].toSorted(), ['192.0.2.1', '192.0.2.2']);
});

test('a workload with addresses is never looked up by its host name', () => {
  const index = mesh({ workloads: [external({ ips: ['10.0.0.9'] })], services: [WEB] });
  const hop = nextHop(index, { source: CLIENT, clientIp: '10.0.0.1', target: { ip: '10.1.0.1', port: 80 } }, always(0));
  assert.equal(hop.kind === 'plaintext' && hop.address.ip, '10.0.0.9');
});

test('a name that leads to a port of the agent on loopback refuses', () => {
  const web = service('web', { vips: VIPS, ports: new Map([[80, 15_001]]) });
  const index = mesh({ workloads: [external()], services: [web] });
  const question = { podUid: 'p', client: { ip: '10.0.0.1', port: 1 }, target: { ip: '10.1.0.1', port: 80 } };
  const decision = outboundDecision(index, CLIENT, question, { settings: SETTINGS, random: always(0) });
  const verdict = decision.kind === 'resolve' ? decision.withAddresses(['127.0.0.1']) : undefined;
  assert.equal(verdict?.kind === 'refuse' && verdict.refusal.code, 'CV-SELF-CALL');
});

for (const [name, state, want] of [
  ['an unknown waypoint', { services: [service('web', { vips: VIPS, waypoint: atHostname('wp') })] }, 'default/wp'],
  [
    'an unknown waypoint given by address',
    { services: [service('web', { vips: VIPS, waypoint: atAddress('10.1.0.9', { network: 'n' }) })] },
    'n/10.1.0.9',
  ],
  [
    'an unknown gateway',
    {
      workloads: [
        workload('far', { network: 'far', services: memberOf({ web: {} }), networkGateway: atHostname('gw') }),
      ],
      services: [service('web', { vips: VIPS, subjectAltNames: [id('web')] })],
    },
    'default/gw',
  ],
  [
    'nothing, when the waypoint is known and only has no instance',
    { services: [service('web', { vips: VIPS, waypoint: atHostname('wp.default.svc.cluster.local') }), service('wp')] },
    undefined,
  ],
] as const) {
  test(`a refusal names what an on-demand control plane could tell: ${name}`, () => {
    const target = { ip: '10.1.0.1', port: 80 };
    const hop = nextHop(mesh(state), { source: CLIENT, clientIp: '10.0.0.1', target }, always(0));
    assert(hop.kind === 'refuse');
    assert.equal(hop.missing, want);
  });
}
