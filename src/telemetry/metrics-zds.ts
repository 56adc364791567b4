/** Metrics of enrolment by a CNI agent (ZDS), and of the redirection that it writes. */
import { Counter, Gauge, type Registry } from 'prom-client';

export interface ZdsMetrics {
  /** One request of the CNI agent, and whether the answer was yes. */
  request(kind: string, result: 'ok' | 'refused'): void;
  connected(isConnected: boolean): void;
  /** Enrolled pods some of whose traffic goes past the agent, by direction. */
  notRedirected(pods: Readonly<Record<string, number>>): void;
}

export function zdsMetrics(registers: Registry[]): ZdsMetrics {
  const requests = new Counter({
    name: 'culvert_zds_requests_total',
    help: 'Requests of the CNI agent by kind and answer (unstable).',
    labelNames: ['kind', 'result'],
    registers,
  });
  const connected = new Gauge({
    name: 'culvert_zds_connected',
    help: 'Whether a CNI agent is connected; 0 also when pods are listed in files (unstable).',
    registers,
  });
  const gaps = new Gauge({
    name: 'culvert_pods_not_redirected',
    help: 'Enrolled pods whose traffic goes past the agent in this direction, in plaintext (unstable).',
    labelNames: ['direction'],
    registers,
  });
  return {
    request: (kind, result) => requests.inc({ kind, result }),
    connected: (isConnected) => connected.set(isConnected ? 1 : 0),
    notRedirected: (pods) => {
      for (const [direction, count] of Object.entries(pods)) gaps.set({ direction }, count);
    },
  };
}
