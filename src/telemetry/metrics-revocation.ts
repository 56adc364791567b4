/** Metrics of revocation lists: peers turned away, as ztunnel counts them, and loads of the file. */
import { Counter, type Registry } from 'prom-client';

export interface RevocationMetrics {
  /** So many handshakes were refused, or live tunnels cut. */
  rejected(reporter: 'source' | 'destination', count: number): void;
  loaded(result: 'ok' | 'failed'): void;
}

export function revocationMetrics(registers: Registry[]): RevocationMetrics {
  const rejections = new Counter({
    name: 'istio_crl_policy_rejections_total',
    help: 'The total number of handshakes refused and tunnels cut because of a revoked certificate (unstable).',
    labelNames: ['reporter'],
    registers,
  });
  const loads = new Counter({
    name: 'culvert_crl_loads_total',
    help: 'Loads of the revocation lists by outcome (unstable).',
    labelNames: ['result'],
    registers,
  });
  return {
    rejected: (reporter, count) => rejections.inc({ reporter }, count),
    loaded: (result) => loads.inc({ result }),
  };
}
