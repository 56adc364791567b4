/** One traffic telemetry with a clock the test owns and lines and metrics it can read. */

import type { PeerLabels } from '../../../src/model/verdict.ts';
import { ConnectionRecords } from '../../../src/telemetry/connection-records.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import type { ConnectionStart } from '../../../src/telemetry/traffic.ts';
import { FakeClock } from '../../support/fake-clock.ts';

export const shop: PeerLabels = {
  pod: 'shop-6d9f7c5b8-x2x9q',
  workload: 'shop',
  canonicalName: 'shop',
  canonicalRevision: 'v1',
  app: 'shop',
  namespace: 'retail',
  identity: 'spiffe://cluster.local/ns/retail/sa/shop',
  cluster: 'east1',
  region: 'r1',
  zone: '',
};

const cart: PeerLabels = {
  ...shop,
  pod: 'cart-0',
  workload: 'cart',
  canonicalName: 'cart',
  app: 'cart',
  identity: 'spiffe://cluster.local/ns/retail/sa/cart',
};

/** An outbound connection with everything that a log line can say. */
export const outbound: ConnectionStart = {
  id: 'c-1',
  podUid: 'pod-1',
  direction: 'outbound',
  protocol: 'HBONE',
  src: { ip: '10.42.1.7', port: 51_840 },
  dst: { ip: '10.42.2.9', port: 15_008 },
  originalDst: '10.96.0.12:80',
  hboneAuthority: '10.42.2.9:8080',
  labels: {
    reporter: 'source',
    source: shop,
    destination: cart,
    destinationService: { hostname: 'cart.retail.svc.cluster.local', name: 'cart', namespace: 'retail' },
    securityPolicy: 'mutual_tls',
  },
};

/** The same connection as the destination sees it. */
export const inbound: ConnectionStart = {
  ...outbound,
  id: 'c-2',
  direction: 'inbound',
  labels: { ...outbound.labels, reporter: 'destination' },
};

export function trafficFixture(options: { format?: 'text' | 'json'; filter?: string; maxLabelSets?: number } = {}) {
  const clock = new FakeClock();
  const lines: string[] = [];
  const { format = 'text', filter, maxLabelSets = 100 } = options;
  const root = rootLogger({ sink: { write: (line) => lines.push(line) }, clock, format, filter });
  const metrics = new AgentMetrics({ buildTag: '1.2.3', hasProcessMetrics: false, maxLabelSets });
  const traffic = new ConnectionRecords({ metrics, accessLog: root.scope('access'), clock });
  return { clock, lines, metrics, traffic };
}

/** The samples of one series, `{labels} value`, as the scraper reads them. */
export async function samplesOf(metrics: AgentMetrics, name: string): Promise<readonly string[]> {
  const lines = (await metrics.render()).split('\n');
  return lines.filter((line) => new RegExp(`^${name}[ {]`).test(line)).map((line) => line.slice(name.length));
}
