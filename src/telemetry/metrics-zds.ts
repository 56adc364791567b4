/** Metrics of enrolment by a CNI agent (ZDS), and of the redirection that it writes. */
import { Counter, Gauge, type Registry } from 'prom-client';

export interface ZdsMetrics {
  /** One request of the CNI agent, and whether the answer was yes. */
  request(kind: string, result: 'ok' | 'refused'): void;
  connected(isConnected: boolean): void;
  /** Enrolled pods some of whose traffic goes past the agent, by direction. */
  notRedirected(pods: Readonly<Record<string, number>>): void;
}

const CONNECTED_HELP = 'Whether the CNI agent that enrols pods is connected (unstable).';

export function zdsMetrics(registers: Registry[]): ZdsMetrics {
  const requests = new Counter({
    name: 'culvert_zds_requests_total',
    help: 'Requests of the CNI agent by kind and answer (unstable).',
    labelNames: ['kind', 'result'],
    registers,
  });
  // Absent where no CNI agent is asked: 0 would look like one that is away.
  let connected: Gauge | undefined;
  const gaps = new Gauge({
    name: 'culvert_pods_not_redirected',
    help: 'Enrolled pods whose traffic goes past the agent in this direction, in plaintext (unstable).',
    labelNames: ['direction'],
    registers,
  });
  return {
    request: (kind, result) => requests.inc({ kind, result }),
    connected: (isConnected) => {
      connected ??= new Gauge({ name: 'culvert_zds_connected', help: CONNECTED_HELP, registers });
      connected.set(isConnected ? 1 : 0);
    },
    notRedirected: (pods) => {
      for (const [direction, count] of Object.entries(pods)) gaps.set({ direction }, count);
    },
  };
}
