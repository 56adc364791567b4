import assert from 'node:assert/strict';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { startStatsServer } from '../../../src/agent/admin/stats.ts';
import { MeshError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { outbound, trafficFixture } from '../../unit/telemetry/traffic-fixture.ts';
import { ask } from './http.ts';

const clock = systemClock;

async function fixture() {
  const { metrics, traffic } = trafficFixture();
  const record = traffic.open(outbound);
  const server = await startStatsServer({ host: '::', port: 0, metrics, clock, log: silentLogger });
  return { metrics, record, port: server.port, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

const PLAIN = 'text/plain; charset=utf-8';
const OPEN = 'application/openmetrics-text;charset=utf-8;version=1.0.0';
const accepts: readonly { claim: string; accept?: string | string[]; type: string }[] = [
  { claim: 'no Accept gets plain text', type: PLAIN },
  { claim: 'an unknown type gets plain text', accept: 'application/json', type: PLAIN },
  { claim: 'OpenMetrics is understood', accept: 'application/openmetrics-text', type: OPEN },
  {
    claim: 'OpenMetrics is found in a list, in any case and with any weight',
    accept: 'text/plain;q=1, Application/OpenMetrics-Text;version=1.0.0;q=0.1',
    type: OPEN,
  },
  {
    claim: 'OpenMetrics is found in a second header',
    accept: ['text/plain', 'application/openmetrics-text'],
    type: OPEN,
  },
];

for (const { claim, accept, type } of accepts) {
  test(`stats: ${claim}; the body is OpenMetrics all the same`, async () => {
    await using stats = await fixture();
    const reply = await ask(stats.port, '/metrics', { headers: accept === undefined ? {} : { accept } });
    assert.equal(reply.headers['content-type'], type);
    assert.match(reply.text, /^# TYPE istio_tcp_connections_opened counter$/m);
    assert(reply.text.endsWith('# EOF\n'));
  });
}

test('both paths give the same text for any method, others are not found', async () => {
  await using stats = await fixture();
  const first = await ask(stats.port, '/metrics');
  assert.equal((await ask(stats.port, '/stats/prometheus', { method: 'POST' })).text, first.text);
  assert.equal((await ask(stats.port, '/metrics/')).status, 404);
  assert.equal((await ask(stats.port, '/')).status, 404);
});

test('bytes of an open connection are in the very next scrape', async () => {
  await using stats = await fixture();
  stats.record.addClientBytes(4_096);
  const { text } = await ask(stats.port, '/metrics');
  assert.match(text, /^istio_tcp_received_bytes_total\{.*\} 4096$/m);
});

const encodings: readonly { accept: string; want: string | undefined; decode: (body: Buffer) => Buffer }[] = [
  { accept: 'gzip', want: 'gzip', decode: (body) => zlib.gunzipSync(body) },
  { accept: 'br', want: 'br', decode: (body) => zlib.brotliDecompressSync(body) },
  { accept: 'zstd', want: 'zstd', decode: (body) => zlib.zstdDecompressSync(body) },
  { accept: 'deflate', want: 'deflate', decode: (body) => zlib.inflateSync(body) },
  { accept: 'gzip;q=0.5, br;q=0.9', want: 'br', decode: (body) => zlib.brotliDecompressSync(body) },
  { accept: 'gzip;q=0', want: undefined, decode: (body) => body },
  { accept: 'snappy', want: undefined, decode: (body) => body },
];

for (const { accept, want, decode } of encodings) {
  test(`stats: "accept-encoding: ${accept}" is answered with ${want ?? 'no compression'}`, async () => {
    await using stats = await fixture();
    const reply = await ask(stats.port, '/metrics', { headers: { 'accept-encoding': accept } });
    assert.equal(reply.headers['content-encoding'], want);
    assert(decode(reply.bytes).toString().endsWith('# EOF\n'));
  });
}

test('the stats port answers on both families', async () => {
  await using stats = await fixture();
  assert.equal((await ask(stats.port, '/metrics', { host: '::1' })).status, 200);
  assert.equal((await ask(stats.port, '/metrics', { host: '127.0.0.1' })).status, 200);
});

test('a port that is taken is an error that names the address and who wanted it', async () => {
  await using stats = await fixture();
  const { metrics } = stats;
  await assert.rejects(
    startStatsServer({ host: '::', port: stats.port, metrics, clock, log: silentLogger }),
    (error) => {
      assert(error instanceof MeshError);
      assert.equal(error.code, 'CV-BIND');
      assert.match(error.message, /^failed to bind to address \[::\]:\d+: .*EADDRINUSE.* \(stats\)$/);
      return true;
    },
  );
});

test('many scrapers at once share renderings, between which the thread is left to others', {
  timeout: 30_000,
}, async () => {
  let rendered = 0;
  const render = async () => `# rendering ${++rendered}\n# EOF\n`;
  const paced = new FakeClock();
  const options = { host: '127.0.0.1', port: 0, metrics: { render }, clock: paced, log: silentLogger };
  await using stats = await startStatsServer(options);
  let rests = 0;
  const resting = setInterval(() => {
    rests += 1;
    paced.advance(1);
  }, 20);
  const replies = await Promise.all(Array.from({ length: 50 }, () => ask(stats.port, '/metrics')));
  clearInterval(resting);
  assert(replies.every(({ status }) => status === 200));
  assert(rendered <= rests + 1, `rendered ${rendered} times with ${rests} rests`);
});
