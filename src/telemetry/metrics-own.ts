/** Metrics that ztunnel does not have, prefixed `culvert_`. Label values come from closed sets or from the mesh state. */
import { Counter, Gauge, type Registry } from 'prom-client';
import { type ReasonCode, reasonOf } from '../base/reasons.ts';
import type { TrafficSeriesTable } from './traffic-series.ts';

type Direction = 'inbound' | 'outbound';
type Outcome = 'ok' | 'failed';

/** One certificate the agent holds; `notAfterMs` is Unix time. */
interface CertificateExpiry {
  readonly identity: string;
  readonly notAfterMs: number;
}

export interface OwnMetrics {
  /** So many connections were refused, or ended, for `code`. */
  refused(code: ReasonCode, direction: Direction, count: number): void;
  /** So many DNS queries of pods were not answered as asked, for `code`. */
  dnsRefused(code: ReasonCode, count: number): void;
  certificateRenewed(outcome: Outcome): void;
  /** A request for a certificate failed; counted as a failed renewal too. */
  certificateFailed(reason: ReasonCode): void;
  /** What the source of certificates sent or wrote could not be used, or it could not be reached. */
  certificateSourceFailed(reason: ReasonCode): void;
  /** Called at every scrape. */
  watchCertificates(list: () => readonly CertificateExpiry[]): void;
  /** Redirection rules were missing or altered in a pod and were written again. */
  redirectRepaired(): void;
  meshFileLoaded(outcome: Outcome): void;
  policiesRejected(count: number): void;
  /** Another data-plane worker took the place of one that ended. */
  workerRestarted(cause: string): void;
}

export function ownMetrics(registers: Registry[], traffic: TrafficSeriesTable): OwnMetrics {
  const refusals = counter(registers, 'refusals_total', REFUSALS_HELP, ['reason', 'layer', 'direction']);
  const dnsRefusals = counter(registers, 'dns_refusals_total', DNS_REFUSALS_HELP, ['reason']);
  const renewals = counter(registers, 'certificate_renewals_total', 'Certificate requests by outcome', ['result']);
  const failures = counter(registers, 'certificate_failures_total', 'Failed certificate requests by reason', [
    'reason',
  ]);
  const sourceFailures = counter(registers, 'certificate_source_failures_total', SOURCE_FAILURES_HELP, ['reason']);
  const loads = counter(registers, 'mesh_file_loads_total', 'Loads of the mesh file by outcome', ['result']);
  const repairs = counter(registers, 'redirect_repairs_total', REPAIRS_HELP, []);
  const bugs = counter(registers, 'bugs_total', 'Defects of the agent that were caught', []);
  const restarts = counter(registers, 'worker_restarts_total', RESTARTS_HELP, ['cause']);
  const rejected = gauge(registers, 'policies_rejected', 'Policies that could not be represented; they fail closed');
  labelSetMetrics(registers, traffic);
  const watch = certificateExpiry(registers);
  return {
    refused: (code, direction, count) => {
      refusals.inc({ reason: code, layer: reasonOf(code).layer, direction }, count);
      if (code === 'CV-BUG') bugs.inc(count);
    },
    dnsRefused: (reason, count) => {
      dnsRefusals.inc({ reason }, count);
      if (reason === 'CV-BUG') bugs.inc(count);
    },
    certificateRenewed: (result) => renewals.inc({ result }),
    certificateFailed: (reason) => {
      renewals.inc({ result: 'failed' });
      failures.inc({ reason });
    },
    certificateSourceFailed: (reason) => sourceFailures.inc({ reason }),
    watchCertificates: watch,
    redirectRepaired: () => repairs.inc(),
    meshFileLoaded: (result) => loads.inc({ result }),
    policiesRejected: (count) => rejected.set(count),
    workerRestarted: (cause) => restarts.inc({ cause }),
  };
}

const REFUSALS_HELP = 'Connections refused or ended early, by reason code and deciding layer';
const DNS_REFUSALS_HELP = 'DNS queries of captured pods that got no answer or an error of ours, by reason code';
const SOURCE_FAILURES_HELP = 'Files and streams of certificates that could not be used, by reason';
const REPAIRS_HELP = 'Pods whose redirection rules were found altered and written again';
const RESTARTS_HELP = 'Data-plane workers that ended and were replaced, by cause';
const EXPIRY_HELP = 'Unix time at which the certificate of an identity expires (unstable).';

function counter(registers: Registry[], name: string, help: string, labelNames: readonly string[]): Counter {
  return new Counter({ name: `culvert_${name}`, help: `${help} (unstable).`, labelNames, registers });
}

function gauge(registers: Registry[], name: string, help: string, read?: () => number): Gauge {
  const collect = read === undefined ? {} : { collect: (): void => made.set(read()) };
  const made = new Gauge({ name: `culvert_${name}`, help: `${help} (unstable).`, registers, ...collect });
  return made;
}

function labelSetMetrics(registers: Registry[], traffic: TrafficSeriesTable): void {
  gauge(registers, 'label_sets', 'Label sets of the traffic metrics held now', () => traffic.size);
  gauge(registers, 'label_sets_evicted', 'Label sets given up because of the bound', () => traffic.evicted);
}

/** The gauge is rebuilt at each scrape, so an identity that left leaves no series behind. */
function certificateExpiry(registers: Registry[]): OwnMetrics['watchCertificates'] {
  let list: () => readonly CertificateExpiry[] = () => [];
  const expiry = new Gauge({
    name: 'culvert_certificate_expiry_seconds',
    help: EXPIRY_HELP,
    labelNames: ['identity'],
    registers,
    collect() {
      this.reset();
      for (const { identity, notAfterMs } of list()) this.set({ identity }, notAfterMs / 1000);
    },
  });
  expiry.reset();
  return (replacement) => {
    list = replacement;
  };
}
