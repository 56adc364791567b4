import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConnectionRecords } from '../../../src/telemetry/connection-records.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import type { ConnectionRecord, ConnectionStart } from '../../../src/telemetry/traffic.ts';
import { TrafficMirror } from '../../../src/telemetry/traffic-mirror.ts';
import { TrafficReporter } from '../../../src/telemetry/traffic-report.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { inbound, outbound, samplesOf, shop, trafficFixture } from './traffic-fixture.ts';

const GONE = { code: 'CV-WORKER', text: 'connection closed: the worker that carried it ended' } as const;

/** One thread that carries connections, and one that is told about them through a port. */
function twoThreads(maxLabelSets = 100) {
  const clock = new FakeClock();
  const lines: string[] = [];
  const logs = rootLogger({ sink: { write: (line) => lines.push(line) }, clock, format: 'text' });
  let news = 0;
  const reporter = new TrafficReporter(
    () => clock.wallMs(),
    () => (news += 1),
    maxLabelSets,
  );
  const records = new ConnectionRecords({ metrics: reporter, accessLog: logs.scope('access'), clock });
  const metrics = new AgentMetrics({ buildTag: '1.2.3', hasProcessMetrics: false });
  const mirror = new TrafficMirror({ metrics, accessLog: logs.scope('access'), wallMs: () => clock.wallMs() });
  const report = (): void => mirror.add(structuredClone(reporter.take()));
  return { clock, lines, records, metrics, mirror, report, news: () => news };
}

const SERIES = [
  'istio_tcp_connections_opened_total',
  'istio_tcp_connections_closed_total',
  'istio_tcp_connections_failed_total',
  'istio_tcp_received_bytes_total',
  'istio_tcp_sent_bytes_total',
  'istio_tcp_sockets_open',
  'culvert_refusals_total',
  'istio_crl_policy_rejections_total',
  'culvert_hand_over_connections_total',
  'culvert_hand_over_pause_seconds_count',
  'culvert_hand_over_pause_seconds_sum',
] as const;

async function pageOf(metrics: AgentMetrics): Promise<readonly string[]> {
  const samples = await Promise.all(SERIES.map(async (name) => (await samplesOf(metrics, name)).map((s) => name + s)));
  return samples
    .flat()
    .filter((line) => !line.endsWith(' 0'))
    .sort();
}

/** A connection of one of four label sets. */
function start(id: string, set: number): ConnectionStart {
  const base = set % 2 === 0 ? outbound : inbound;
  return { ...base, id, labels: { ...base.labels, source: { ...shop, workload: `w${set}` } } };
}

const CODES = ['CV-POLICY-DENY', 'CV-HOLD'] as const;

const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('open' as const), set: fc.nat(3) }),
    fc.record({ kind: fc.constant('bytes' as const), at: fc.nat(9), client: fc.nat(99), server: fc.nat(99) }),
    fc.record({ kind: fc.constant('close' as const), at: fc.nat(9), code: fc.constantFrom(undefined, ...CODES) }),
    fc.record({ kind: fc.constant('adopt' as const), set: fc.nat(3), pauseMs: fc.nat(3_000) }),
    fc.record({ kind: fc.constant('move' as const), at: fc.nat(9) }),
    fc.record({ kind: fc.constant('early' as const) }),
    fc.record({ kind: fc.constant('socket' as const), isSource: fc.boolean() }),
    fc.record({ kind: fc.constant('revoked' as const), isSource: fc.boolean() }),
    fc.record({ kind: fc.constant('report' as const) }),
  ),
  { maxLength: 60 },
);

type Step = typeof steps extends fc.Arbitrary<readonly (infer S)[]> ? S : never;

/** Does the same to one set of records as to another. */
class Driver {
  readonly #records: ConnectionRecords;
  readonly #open: ConnectionRecord[] = [];
  #count = 0;

  constructor(records: ConnectionRecords) {
    this.#records = records;
  }

  do(step: Step): void {
    switch (step.kind) {
      case 'open':
        this.#open.push(this.#records.open(start(`c-${++this.#count}`, step.set)));
        return;
      case 'bytes':
        this.#open[step.at % this.#open.length]?.addClientBytes(step.client);
        this.#open[step.at % this.#open.length]?.addServerBytes(step.server);
        return;
      case 'close':
        this.#take(step.at)?.close(step.code && { code: step.code, text: 'denied' });
        return;
      case 'adopt':
        this.#adopt(step.set, step.pauseMs);
        return;
      case 'move':
        this.#take(step.at)?.move();
        return;
      case 'early':
        this.#records.refused({ ...outbound, refusal: { code: 'CV-BUG', text: 'x' } });
        return;
      case 'socket':
        this.#records.socketOpened(step.isSource ? 'source' : 'destination');
        return;
      case 'revoked':
        this.#records.peerRevoked(step.isSource ? 'source' : 'destination');
        return;
      case 'report':
    }
  }

  #take(at: number): ConnectionRecord | undefined {
    return this.#open.splice(at % Math.max(1, this.#open.length), 1)[0];
  }

  #adopt(set: number, pauseMs: number): void {
    const from = { ...start(`m-${++this.#count}`, set), earlier: { clientBytes: 1, serverBytes: 2 } };
    this.#open.push(this.#records.open(from));
    this.#records.moved(from, pauseMs);
  }
}

test('numbers that came through reports are those of counting in place, whenever reports are made', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const far = twoThreads();
      const near = trafficFixture();
      const [there, here] = [new Driver(far.records), new Driver(near.traffic)];
      for (const step of all) {
        there.do(step);
        here.do(step);
        if (step.kind === 'report') far.report();
      }
      far.report();
      assert.deepEqual(await pageOf(far.metrics), await pageOf(near.metrics));
      const { live, opened, refused } = near.traffic.totals();
      assert.deepEqual(far.mirror.totals(), { live, opened, refused: new Map(Object.entries(refused)) });
    }),
    { numRuns: 200 },
  );
});

test('with few label sets nothing gained is lost when one makes room', async () => {
  const { records, metrics, report } = twoThreads(2);
  for (let set = 0; set < 8; set++) {
    const record = records.open(start(`c-${set}`, set));
    record.addClientBytes(1);
    record.close();
    if (set % 3 === 0) report();
  }
  report();
  const received = await samplesOf(metrics, 'istio_tcp_received_bytes_total');
  assert.equal(received.length, 8);
  assert(received.every((line) => line.endsWith(' 1')));
});

test('what a lost thread had open gets one line each, is counted as closed, and can be explained', async () => {
  const { clock, records, metrics, mirror, report, lines } = twoThreads();
  records.open(outbound).addClientBytes(7);
  records.open({ ...inbound, id: 'over' }).close();
  records.socketOpened('source');
  report();
  clock.advance(1_500);
  const before = lines.length;

  const lost = mirror.lost(GONE);

  const written = lines.slice(before);
  assert.equal(written.length, 1);
  assert.match(
    written[0] ?? '',
    /\terror\taccess\tconnection complete\t.*duration="1500ms".*reason="CV-WORKER".*"c-1"/,
  );
  assert.doesNotMatch(written[0] ?? '', /bytes_/);
  assert.deepEqual(
    lost.map(({ id, state, reason, clientBytes }) => ({ id, state, reason, clientBytes })),
    [{ id: 'c-1', state: 'refused', reason: 'CV-WORKER', clientBytes: undefined }],
  );
  assert.deepEqual(await samplesOf(metrics, 'istio_tcp_sockets_open'), ['{reporter="source"} 0']);
  assert.equal((await samplesOf(metrics, 'istio_tcp_connections_closed_total')).length, 2);
  assert.equal(mirror.totals().live, 0);
  assert.deepEqual(mirror.lost(GONE), []);
});

test('bytes alone are no news, everything else is', () => {
  const { records, news } = twoThreads();
  const record = records.open(outbound);
  const opened = news();
  record.addClientBytes(1);
  record.addServerBytes(1);
  assert.equal(news(), opened);
  record.close();
  assert(news() > opened);
});

test('a connection that began and ended between two reports is in the numbers and in no list', () => {
  const reporter = new TrafficReporter(
    () => 0,
    () => {},
  );
  const clock = new FakeClock();
  new ConnectionRecords({ metrics: reporter, accessLog: {}, clock }).open(outbound).close();
  const { opened, ended, gains } = reporter.take();
  assert.deepEqual([opened, ended], [[], []]);
  assert.deepEqual(
    gains.map((gain) => [gain.opened, gain.closed]),
    [[1, [['-', 1]]]],
  );
  assert.deepEqual(reporter.take().gains, []);
});
