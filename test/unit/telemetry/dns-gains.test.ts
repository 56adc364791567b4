import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { addDnsGains, DnsGainCounter } from '../../../src/telemetry/dns-gains.ts';
import { DnsRecords } from '../../../src/telemetry/dns-records.ts';
import type { DnsReport } from '../../../src/telemetry/dns-report.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const client = { pod: 'shop-0', namespace: 'retail', canonicalName: 'shop', canonicalRevision: 'v1' };
const refusal = { code: 'CV-DNS-TIMEOUT', text: 'no answer' } as const;

const reports: fc.Arbitrary<DnsReport> = fc.record({
  transport: fc.constantFrom('udp', 'tcp'),
  question: fc.constantFrom({ name: 'web', type: 'A' }, { name: 'web', type: 'AAAA' }, undefined),
  client: fc.constantFrom(client, { ...client, canonicalName: 'cart' }, undefined),
  outcome: fc.oneof(
    fc.constantFrom<DnsReport['outcome']>(
      { kind: 'local', result: 'success', addresses: 1 },
      { kind: 'refused', refusal },
      { kind: 'failed', refusal, durationMs: 2_000 },
    ),
    fc.nat(6_000).map((durationMs) => ({ kind: 'forwarded' as const, isNegative: false, answers: 1, durationMs })),
  ),
});

test('queries counted in another thread give the page of queries counted here, however often they are taken', async () => {
  const steps = fc.array(fc.record({ report: reports, isTaken: fc.boolean() }), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const clock = new FakeClock();
      const [here, told] = ['a', 'a'].map((buildTag) => new AgentMetrics({ buildTag, hasProcessMetrics: false }));
      assert(here !== undefined && told !== undefined);
      let news = 0;
      const counter = new DnsGainCounter(() => (news += 1));
      const near = new DnsRecords({ metrics: here, log: {}, clock });
      const far = new DnsRecords({ metrics: counter, log: {}, clock });
      const take = (): void => addDnsGains(told, structuredClone(counter.take()));
      for (const { report, isTaken } of all) {
        near.answered(report);
        far.answered(report);
        if (isTaken) take();
      }
      take();
      const [page, copy] = await Promise.all([here.render(), told.render()]);
      assert.deepEqual(sorted(copy), sorted(page));
      assert(news > 0 || !/istio_dns|culvert_dns/.test(page));
    }),
    { numRuns: 200 },
  );
});

/** Sums of fractions depend on the order of adding in their last digits. */
function sorted(page: string): readonly string[] {
  return page
    .split('\n')
    .map((line) => line.replace(/(_sum\{.*\} )(\S+)$/, (_, head: string, sum: string) => head + Number(sum).toFixed(6)))
    .sort();
}
