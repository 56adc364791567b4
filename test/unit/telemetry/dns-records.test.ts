import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogFields, Logger } from '../../../src/base/log.ts';
import { DnsRecords } from '../../../src/telemetry/dns-records.ts';
import type { DnsOutcome, DnsReport } from '../../../src/telemetry/dns-report.ts';
import { DnsSeriesTable } from '../../../src/telemetry/dns-series.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const client = { pod: 'shop-0', namespace: 'retail', canonicalName: 'shop', canonicalRevision: 'v1' };
const question = { name: 'web.retail', type: 'A' };
const TIMEOUT = { code: 'CV-DNS-TIMEOUT', text: 'no answer from 10.0.0.1' } as const;
const forwarded = { kind: 'forwarded', isNegative: false, answers: 3, durationMs: 20 } as const;

function world() {
  const clock = new FakeClock();
  const lines: { readonly level: string; readonly message: string; readonly fields: LogFields }[] = [];
  const method =
    (level: string) =>
    (message: string, fields: LogFields = {}) =>
      lines.push({ level, message, fields });
  const log: Logger = { debug: method('debug'), warn: method('warn') };
  const metrics = new AgentMetrics({ buildTag: '1', hasProcessMetrics: false });
  const records = new DnsRecords({ metrics, log, clock });
  const tell = (outcome: DnsOutcome, changes: Partial<DnsReport> = {}): void =>
    records.answered({ transport: 'udp', question, client, outcome, ...changes });
  return { clock, lines, metrics, tell };
}

async function dnsLines(metrics: AgentMetrics): Promise<string[]> {
  return (await metrics.render()).split('\n').filter((line) => /istio_dns|culvert_dns/.test(line));
}

test('nothing is exposed before the first query', async () => {
  assert.deepEqual(await dnsLines(world().metrics), []);
});

test('the names, types, labels and buckets are those of the reference', async () => {
  const { metrics, tell } = world();
  tell(forwarded);
  const labels =
    'request_query_type="a",request_protocol="udp",source_canonical_service="shop",source_canonical_revision="v1"';
  const histogram = 'istio_dns_upstream_request_duration_seconds';
  assert.deepEqual(await dnsLines(metrics), [
    '# HELP istio_dns_requests Total number of DNS requests (unstable).',
    '# TYPE istio_dns_requests counter',
    `istio_dns_requests_total{${labels}} 1`,
    '# HELP istio_dns_upstream_requests Total number of DNS requests forwarded to upstream (unstable).',
    '# TYPE istio_dns_upstream_requests counter',
    `istio_dns_upstream_requests_total{${labels}} 1`,
    `# HELP ${histogram} Time that forwarded DNS requests took (unstable).`,
    `# TYPE ${histogram} histogram`,
    `# UNIT ${histogram} seconds`,
    `${histogram}_sum{${labels}} 0.02`,
    `${histogram}_count{${labels}} 1`,
    `${histogram}_bucket{le="0.0005",${labels}} 0`,
    `${histogram}_bucket{le="0.001",${labels}} 0`,
    `${histogram}_bucket{le="0.01",${labels}} 0`,
    `${histogram}_bucket{le="0.1",${labels}} 1`,
    `${histogram}_bucket{le="1.0",${labels}} 1`,
    `${histogram}_bucket{le="5.0",${labels}} 1`,
    `${histogram}_bucket{le="+Inf",${labels}} 1`,
  ]);
});

for (const [claim, outcome, asked, upstream, failures, refusals] of [
  ['a local answer', { kind: 'local', result: 'success', addresses: 2 }, 1, 0, 0, 0],
  ['an answer of a nameserver', forwarded, 1, 1, 0, 0],
  ['a negative answer of a nameserver', { ...forwarded, isNegative: true }, 1, 1, 1, 0],
  ['no answer', { kind: 'failed', refusal: TIMEOUT, durationMs: 10_000 }, 1, 1, 1, 1],
  ['a refusal', { kind: 'refused', refusal: { code: 'CV-LIMIT', text: 'full' } }, 1, 0, 0, 1],
] as const) {
  test(`${claim} is counted once, as what it is`, async () => {
    const { metrics, tell } = world();
    tell(outcome);
    const lines = await dnsLines(metrics);
    const count = (name: string): number =>
      Number(
        lines
          .find((line) => line.startsWith(`${name}{`))
          ?.split(' ')
          .at(-1) ?? 0,
      );
    assert.deepEqual(
      [
        count('istio_dns_requests_total'),
        count('istio_dns_upstream_requests_total'),
        count('istio_dns_upstream_failures_total'),
        count('culvert_dns_refusals_total'),
      ],
      [asked, upstream, failures, refusals],
    );
    assert.equal(count('istio_dns_upstream_request_duration_seconds_count'), upstream);
  });
}

test('what is no query is a refusal and no request', async () => {
  const { metrics, tell } = world();
  tell({ kind: 'refused', refusal: { code: 'CV-WIRE-MALFORMED', text: 'no' } }, { question: undefined });
  assert.deepEqual((await dnsLines(metrics)).slice(2), ['culvert_dns_refusals_total{reason="CV-WIRE-MALFORMED"} 1']);
});

for (const [outcome, result, endpoints, reason] of [
  [{ kind: 'local', result: 'success', addresses: 2 }, 'success', 2, undefined],
  [{ kind: 'local', result: 'no records', addresses: 0 }, 'no records', 0, undefined],
  [forwarded, 'forwarded', 3, undefined],
  [
    { kind: 'failed', refusal: { ...TIMEOUT, code: 'CV-DRAIN' }, durationMs: 1 },
    'forwarding failed (no answer from 10.0.0.1)',
    0,
    'CV-DRAIN',
  ],
] as const) {
  test(`the log says "${result}" in the fields of the reference, at debug and without a message`, () => {
    const { lines, tell } = world();
    tell(outcome);
    assert.equal(lines.length, 1);
    assert.deepEqual([lines[0]?.level, lines[0]?.message], ['debug', '']);
    assert.deepEqual(Object.entries(lines[0]?.fields ?? {}), [
      ['src.workload', 'shop-0'],
      ['src.namespace', 'retail'],
      ['query', 'A'],
      ['domain', 'web.retail.'],
      ['result', result],
      ['endpoints', endpoints],
      ['reason', reason],
    ]);
  });
}

test('a client nobody knows is unknown in log and metrics', async () => {
  const { lines, metrics, tell } = world();
  const refusal = { code: 'CV-WORKLOAD-UNKNOWN', text: 'who?' } as const;
  tell({ kind: 'refused', refusal }, { client: undefined });
  assert.deepEqual([lines[0]?.fields['src.workload'], lines[0]?.fields['src.namespace']], ['unknown', 'unknown']);
  assert.match(await metrics.render(), /source_canonical_service="unknown",source_canonical_revision="unknown"\} 1/);
});

test('nameservers that do not answer are said aloud once a minute, not once a query', () => {
  const { clock, lines, tell } = world();
  const warned = (): number => lines.filter(({ level }) => level === 'warn').length;
  for (let i = 0; i < 100; i++) tell({ kind: 'failed', refusal: TIMEOUT, durationMs: 10_000 });
  assert.equal(warned(), 1);
  clock.advance(59_999);
  tell({ kind: 'failed', refusal: TIMEOUT, durationMs: 10_000 });
  assert.equal(warned(), 1);
  clock.advance(1);
  tell({ kind: 'failed', refusal: TIMEOUT, durationMs: 10_000 });
  assert.equal(warned(), 2);
});

test('label sets have a bound, and the one unused for longest makes room', () => {
  const table = new DnsSeriesTable(2);
  const labels = (service: string) => ({
    request_query_type: 'a',
    request_protocol: 'udp',
    source_canonical_service: service,
    source_canonical_revision: 'v1',
  });
  for (const service of ['a', 'b', 'a', 'c']) table.asked(labels(service));
  assert.equal(table.size, 2);
  const [requests] = table.families();
  assert.deepEqual(
    requests?.samples.map(({ labels: { source_canonical_service: service }, value }) => [service, value]),
    [
      ['a', 2],
      ['c', 1],
    ],
  );
});
