/** An admin server on a free port with providers the test can look into. */
import { type AdminProviders, startAdminServer } from '../../../src/agent/admin/admin-server.ts';
import type { StatusView } from '../../../src/agent/admin/views.ts';
import { ThreadInspector } from '../../../src/agent/thread-inspector.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { outbound, trafficFixture } from '../../unit/telemetry/traffic-fixture.ts';
import { use } from '../../unit/telemetry/use-fixture.ts';

const STATUS: StatusView = {
  node: 'node-1',
  version: '0.1.0',
  startedAt: '2026-01-01T00:00:00Z',
  uptimeSeconds: 61,
  isReady: true,
  pending: [],
  listeners: [{ component: 'admin', address: '127.0.0.1:15000' }],
  enrolment: { source: 'list in /etc/pods.yaml' },
  pods: [
    { uid: 'u1', name: 'shop', namespace: 'retail', serviceAccount: 'shop', state: 'Up', repairs: 0 },
    {
      uid: 'u2',
      name: 'cart',
      namespace: 'retail',
      serviceAccount: 'cart',
      state: 'Pending',
      lastError: { code: 'CV-NETNS', message: '/run/netns/x: no such file' },
      repairs: 2,
    },
  ],
  mesh: {
    source: '/etc/mesh.yaml',
    lastLoadAt: '2026-01-01T00:00:01Z',
    workloads: 4,
    services: 2,
    policies: 1,
    rejectedPolicies: 0,
  },
  certificates: { source: 'embedded CA /ca', total: 2, unavailable: 0, soonestExpiry: '2026-01-02T00:00:00Z' },
  connections: { live: 1, opened: 3, refused: { 'CV-POLICY-DENY': 2 } },
  workers: [{ name: 'main', state: 'running', connections: 1, restarts: 0 }],
  handOver: { holdMs: 3_600_000, holdMemoryMib: 512, held: [] },
};

export async function adminFixture(overrides: Partial<AdminProviders> = {}) {
  const logging = rootLogger({ sink: { write: () => undefined }, clock: new FakeClock(), format: 'text' });
  const { traffic } = trafficFixture();
  traffic.open(outbound);
  traffic.open({ ...outbound, id: 'c-9' }).close({ code: 'CV-POLICY-DENY', text: 'explicitly denied by: retail/no' });
  let quits = 0;
  const inspector = new ThreadInspector();
  const providers: AdminProviders = {
    configDump: async () => ({ workloads: [{ uid: 'b', name: 'x', absent: undefined }], certificates: [] }),
    status: async () => STATUS,
    certificates: () => ({ source: 'embedded CA /ca', identities: [] }),
    connections: async () => ({ open: traffic.live(), refused: traffic.recentRefusals() }),
    usage: async () => ({
      atMs: 1_000,
      workloads: [{ ...use('u1', { connections: 3 }), namespace: 'retail', pod: 'shop', lane: 'common' }],
    }),
    findConnection: async (id) => traffic.find(id),
    quit: async () => {
      quits += 1;
    },
    logging,
    inspectors: () => new Map([['main', (call) => inspector.inspect(call)]]),
    ...overrides,
  };
  const server = await startAdminServer({
    port: 0,
    isIpv6Enabled: false,
    providers,
    clock: systemClock,
    log: silentLogger,
  });
  return {
    port: server.port,
    quits: () => quits,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
