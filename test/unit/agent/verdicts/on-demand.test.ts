import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { VerdictAuthority } from '../../../../src/agent/verdicts/verdict-authority.ts';
import { silentLogger } from '../../../../src/base/log.ts';
import { EMPTY_MESH, type MeshState } from '../../../../src/model/mesh-index.ts';
import type { MeshUpdate } from '../../../../src/model/mesh-update.ts';
import type { OutboundVerdict } from '../../../../src/model/verdict.ts';
import type { HostRecord } from '../../../../src/sys/host-lookup.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import {
  always,
  atHostname,
  DNS_SETTINGS,
  memberOf,
  NOTHING,
  noHosts,
  SETTINGS,
  service,
  vip,
  workload,
} from '../../model/sample-mesh.ts';

const POD = { uid: 'p1', name: 'client', namespace: 'default', serviceAccount: 'client' };
const CLIENT = workload('client', { ips: ['10.0.0.1'] });

interface WorldOptions {
  readonly state?: Partial<MeshState>;
  readonly lookupHost?: (hostname: string) => Promise<readonly HostRecord[]>;
  /** What the control plane tells when asked for a key; absent: it knows nothing by it. */
  readonly tells?: Readonly<Record<string, Partial<MeshUpdate>>>;
}

function world({ state = {}, lookupHost = noHosts, tells = {} }: WorldOptions) {
  const clock = new FakeClock();
  const certificates = { get: () => Promise.reject(new Error('not asked')), prefetch: () => {}, forget: () => {} };
  const lookups: string[] = [];
  const authority = new VerdictAuthority(
    { ...SETTINGS, nodeName: 'node-1', isPolicyLogAtInfo: false, dns: DNS_SETTINGS },
    {
      clock,
      random: always(0),
      certificates,
      lookupHost,
      log: silentLogger,
      onHostLookup: ({ pod }, hostname) => lookups.push(`${pod} ${hostname}`),
    },
  );
  authority.addPod(POD);
  authority.replace({ ...EMPTY_MESH, ...state, workloads: [CLIENT, ...(state.workloads ?? [])] });
  const asked: string[] = [];
  const fetch = async (key: string): Promise<void> => {
    asked.push(key);
    await nextTurn();
    authority.apply({ ...NOTHING, ...tells[key] });
  };
  const connect = (ip: string): Promise<OutboundVerdict> =>
    authority.outbound({ podUid: 'p1', client: { ip: '10.0.0.1', port: 40_000 }, target: { ip, port: 80 } });
  return { clock, authority, asked, lookups, fetch, connect };
}

/** `kind address`, or the reason to refuse. */
function outcome(verdict: OutboundVerdict): string {
  return verdict.kind === 'refuse' ? verdict.refusal.code : `${verdict.kind} ${verdict.address.ip}`;
}

const SERVER = workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: {} }) });
const WEB = service('web', { vips: [vip('10.1.0.1')] });
const WAYPOINT = workload('wp', { ips: ['10.0.0.9'], services: memberOf({ wp: {} }) });
const HBONE = new Map([[15_008, 15_008]]);

for (const { name, state, tells, to, asks, want } of [
  {
    name: 'a pod nobody knew of is asked for and reached over HBONE',
    tells: { '/10.0.0.2': { workloads: [SERVER] } },
    to: '10.0.0.2',
    asks: ['/10.0.0.2'],
    want: 'hbone 10.0.0.2',
  },
  {
    name: 'a service nobody knew of is asked for, and an endpoint of it is chosen',
    tells: { '/10.1.0.1': { services: [WEB], workloads: [SERVER] } },
    to: '10.1.0.1',
    asks: ['/10.1.0.1'],
    want: 'hbone 10.0.0.2',
  },
  {
    name: 'what the control plane does not know either is passed through',
    to: '192.0.2.1',
    asks: ['/192.0.2.1'],
    want: 'plaintext 192.0.2.1',
  },
  {
    name: 'what is known is not asked for',
    state: { workloads: [SERVER] },
    to: '10.0.0.2',
    asks: [],
    want: 'hbone 10.0.0.2',
  },
  {
    name: 'a waypoint nobody knew of is asked for as well',
    state: {
      services: [service('web', { vips: [vip('10.1.0.1')], waypoint: atHostname('wp.default.svc.cluster.local') })],
    },
    tells: {
      'default/wp.default.svc.cluster.local': { services: [service('wp', { ports: HBONE })], workloads: [WAYPOINT] },
    },
    to: '10.1.0.1',
    asks: ['default/wp.default.svc.cluster.local'],
    want: 'hbone 10.0.0.9',
  },
  {
    name: 'an address and then its waypoint are asked for, each once; unknown, the waypoint refuses',
    tells: { '/10.0.0.2': { workloads: [{ ...SERVER, waypoint: atHostname('wp.default.svc.cluster.local') }] } },
    to: '10.0.0.2',
    asks: ['/10.0.0.2', 'default/wp.default.svc.cluster.local'],
    want: 'CV-WAYPOINT-UNKNOWN',
  },
  {
    name: 'an address inside a known range is asked for: it may be a pod',
    state: {
      services: [
        service('outside', {
          cidrVips: [{ network: '', cidr: '10.0.0.0/8' }],
          loadBalancer: { mode: 'Passthrough', routingPreferences: [], healthPolicy: 'AllowAll' },
        }),
      ],
    },
    tells: { '/10.0.0.2': { workloads: [SERVER] } },
    to: '10.0.0.2',
    asks: ['/10.0.0.2'],
    want: 'hbone 10.0.0.2',
  },
] as (WorldOptions & { name: string; to: string; asks: readonly string[]; want: string })[]) {
  test(name, async () => {
    const { authority, connect, asked, fetch } = world({ ...(state && { state }), ...(tells && { tells }) });
    authority.askFor({ fetch });
    assert.equal(outcome(await connect(to)), want);
    assert.deepEqual(asked, asks);
  });
}

test('without on-demand mode an unknown address is passed through unasked', async () => {
  const { connect, asked } = world({});
  assert.equal(outcome(await connect('192.0.2.1')), 'plaintext 192.0.2.1');
  assert.deepEqual(asked, []);
});

test('an unknown address is refused while the control plane does not say, and never sent in clear', async () => {
  const { authority, clock, connect } = world({});
  authority.askFor({ fetch: () => new Promise(() => undefined) });
  const verdict = connect('10.0.0.2');
  await nextTurn();
  clock.advance(5_000);
  assert.equal(outcome(await verdict), 'CV-MESH-SILENT');
});

test('a pod that leaves the mesh while its question is open is refused', async () => {
  const { authority, connect } = world({});
  authority.askFor({
    fetch: async () => {
      await nextTurn();
      authority.apply({ ...NOTHING, removedWorkloads: [CLIENT.uid] });
    },
  });
  assert.equal(outcome(await connect('192.0.2.1')), 'CV-WORKLOAD-UNKNOWN');
});

const EXTERNAL = workload('external', { hostname: 'db.example.com', protocol: 'TCP', services: memberOf({ web: {} }) });

test('an endpoint known by host name alone is looked up, once for many connections, and each is counted', async () => {
  let questions = 0;
  const lookupHost = async (): Promise<HostRecord[]> => {
    questions += 1;
    return [{ ip: '192.0.2.7', ttlMs: 60_000 }];
  };
  const { connect, lookups } = world({ state: { workloads: [EXTERNAL], services: [WEB] }, lookupHost });
  for (let n = 0; n < 3; n++) assert.equal(outcome(await connect('10.1.0.1')), 'plaintext 192.0.2.7');
  assert.equal(questions, 1);
  assert.deepEqual(lookups, ['client db.example.com', 'client db.example.com', 'client db.example.com']);
});

test('on demand the address that a host name leads to is asked for, too: a pod there is not reached in plaintext', async () => {
  const lookupHost = async (): Promise<HostRecord[]> => [{ ip: '10.0.0.2', ttlMs: 60_000 }];
  const { authority, asked, fetch, connect } = world({
    state: { workloads: [EXTERNAL], services: [WEB] },
    lookupHost,
    tells: { '/10.0.0.2': { workloads: [workload('pod', { ips: ['10.0.0.2'] })] } },
  });
  authority.askFor({ fetch });
  assert.equal(outcome(await connect('10.1.0.1')), 'hbone 10.0.0.2');
  assert.deepEqual(asked, ['/10.0.0.2']);

  authority.askFor({ fetch: () => Promise.reject(new Error('away')) });
  authority.apply({ ...NOTHING, removedWorkloads: ['Kubernetes//Pod/default/pod'] });
  assert.equal(outcome(await connect('10.1.0.1')), 'CV-MESH-SILENT');
});

test('a look-up that fails refuses and says why', async () => {
  const lookupHost = (): Promise<never> => Promise.reject(new Error('queryA ESERVFAIL db.example.com'));
  const { connect } = world({ state: { workloads: [EXTERNAL], services: [WEB] }, lookupHost });
  assert.deepEqual(await connect('10.1.0.1'), {
    kind: 'refuse',
    refusal: {
      code: 'CV-NO-ADDRESS',
      text: 'no ip addresses were resolved for workload: Kubernetes//Pod/default/external: queryA ESERVFAIL db.example.com',
    },
  });
});

test('an endpoint that becomes HBONE while its name is looked up is not dialled in plaintext', async () => {
  const { promise, resolve } = Promise.withResolvers<readonly HostRecord[]>();
  const { authority, connect } = world({
    state: { workloads: [EXTERNAL], services: [WEB] },
    lookupHost: () => promise,
  });
  const verdict = connect('10.1.0.1');
  await nextTurn();
  authority.apply({ ...NOTHING, workloads: [{ ...EXTERNAL, protocol: 'HBONE' }] });
  resolve([{ ip: '192.0.2.7', ttlMs: 60_000 }]);
  assert.equal(outcome(await verdict), 'hbone 192.0.2.7');
});
