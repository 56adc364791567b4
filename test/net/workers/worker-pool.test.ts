import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { VerdictAuthority } from '../../../src/agent/verdicts/verdict-authority.ts';
import { WorkerPool } from '../../../src/agent/workers/worker-pool.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { DEFAULT_TLS_POLICY } from '../../../src/identity/tls-policy.ts';
import { ownNetnsFd } from '../../../src/sys/netns.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { CLIENT_SETTINGS, SERVER_SETTINGS } from '../../../src/tunnel/h2-settings.ts';
import type { Fault } from '../../support/fault-preload.ts';
import { metricSum } from '../../support/metric-text.ts';
import { DNS_SETTINGS, noHosts, SETTINGS } from '../../unit/model/sample-mesh.ts';

/** Threads start, on a machine with many others: generous. */
const LIMIT = { timeout: 120_000 };
const FAULTY = new URL('./faulty-worker.ts', import.meta.url);
const BROKEN = new URL('./broken-worker.ts', import.meta.url);

// Read by the threads of this process when they start.
const folder = mkdtempSync(join(tmpdir(), 'culvert-faults-'));
process.env['FAULTS'] = folder;
/** There while the first worker stands still without using any CPU; it goes on when it is removed. */
const BLOCKED = join(folder, 'block-worker-1.begun');
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

const settings = {
  ports: { hbone: 15_008, plaintext: 15_006, outbound: 15_001 },
  isIpv6Enabled: false,
  isReusePort: true,
  connectTimeoutMs: 1_000,
  handshakeTimeoutMs: 1_000,
  dialHandshakeTimeoutMs: 1_000,
  responseTimeoutMs: 1_000,
  idleTimeoutMs: 60_000,
  halfClosedTimeoutMs: 60_000,
  maxHandshakes: 1,
  maxTunnels: 1,
  maxConnections: 1,
  isFair: true,
  isShortCutAccepted: false,
  budget: { connections: 50_000, handshakesPerSecond: 1_000, bufferedBytes: 1 << 28, loopShare: 1 },
  hasRevocationLists: false,
  pool: { maxStreams: 1, idleReleaseMs: 60_000 },
  http2Client: CLIENT_SETTINGS,
  http2Server: SERVER_SETTINGS,
};

interface World extends AsyncDisposable {
  readonly pool: WorkerPool;
  readonly lines: string[];
  /** As told to the readiness of the agent, changes only. */
  readonly health: boolean[];
  inject(fault: Fault, thread: string): void;
  /** Resolves when `condition` holds. */
  until(condition: () => boolean): Promise<void>;
  restarts(cause: string): Promise<number>;
}

async function world(program = FAULTY, count = 2, hangMs = 60_000): Promise<World> {
  const lines: string[] = [];
  const health: boolean[] = [];
  const logs = rootLogger({ sink: { write: (line) => lines.push(line) }, clock: systemClock, format: 'text' });
  const metrics = new AgentMetrics({ buildTag: 'test', hasProcessMetrics: false });
  const certificates = { get: () => assert.fail('no pod, no certificate'), prefetch() {}, forget() {} };
  const authority = new VerdictAuthority(
    { ...SETTINGS, nodeName: 'node-1', isPolicyLogAtInfo: false, dns: DNS_SETTINGS },
    { clock: systemClock, random: systemRandom, certificates, lookupHost: noHosts, log: silentLogger },
  );
  const start = {
    settings,
    tls: DEFAULT_TLS_POLICY,
    drainGraceMs: 100,
    holdMs: 100,
    logFormat: 'text' as const,
    logFd: 1,
    netnsFd: ownNetnsFd(),
  };
  const pool = await WorkerPool.start(
    { count, hangMs, lanes: undefined, worker: { start, heapMib: 64, program } },
    {
      authority,
      metrics,
      clock: systemClock,
      random: systemRandom,
      wallMs: () => systemClock.wallMs(),
      log: logs.scope('proxy'),
      accessLog: logs.scope('access'),
      writeLines: (piece) => lines.push(piece),
      logFilter: () => logs.current(),
      onEnd: (cause) => metrics.own.workerRestarted(cause),
      claimBefore: async () => 'nowhere',
      onHealth: (isHealthy) => {
        if (health.at(-1) !== isHealthy) health.push(isHealthy);
      },
    },
  );
  return {
    pool,
    lines,
    health,
    inject: (fault, thread) => writeFileSync(join(folder, `${fault}-${thread}`), ''),
    until: async (condition) => {
      while (!condition()) await delay(20);
    },
    restarts: async (cause) => metricSum(await metrics.render(), 'culvert_worker_restarts_total', { cause }),
    [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
  };
}

const running = (pool: WorkerPool): number => pool.views.threads().filter(({ state }) => state === 'running').length;

for (const [fault, cause] of [
  ['throw', 'defect'],
  ['exhaust', 'memory'],
] as const) {
  test(`a worker that meets "${fault}" is replaced, counted as "${cause}", and the other goes on`, LIMIT, async () => {
    await using here = await world();
    const { pool, lines } = here;
    here.inject(fault, 'worker-1');
    await here.until(() => pool.views.threads()[0]?.restarts === 1 && running(pool) === 2);
    assert.equal(await here.restarts(cause), 1);
    assert.equal(pool.views.threads()[1]?.restarts, 0);
    const said = lines.find((line) => line.includes('data-plane worker ended'));
    assert.match(said ?? '', new RegExp(`\\terror\\t.*worker="worker-1" end="${cause}" connections=0`));
    assert.deepEqual(await pool.views.connections(), { open: [], refused: [] });
  });
}

test('a defect in a worker is said with its stack, once', LIMIT, async () => {
  await using here = await world(FAULTY, 1);
  here.inject('throw', 'worker-1');
  await here.until(() => here.pool.views.threads()[0]?.restarts === 1);
  const said = here.lines.filter((line) => line.includes('defect, the worker ends'));
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /a defect on purpose.*fault-preload/);
});

test('a worker whose event loop stands still is ended and replaced', LIMIT, async () => {
  await using here = await world(FAULTY, 2, 2_000);
  const { pool } = here;
  here.inject('spin', 'worker-2');
  await here.until(() => pool.views.threads()[1]?.restarts === 1 && running(pool) === 2);
  assert.equal(await here.restarts('hung'), 1);
});

test('a worker that stands still for longer but uses no CPU is waited for', LIMIT, async () => {
  await using here = await world(FAULTY, 1, 500);
  const { pool } = here;
  here.inject('block', 'worker-1');
  await here.until(() => existsSync(BLOCKED));
  // Longer than what is set; it is given up at the third look, one a second.
  await delay(1_500);
  rmSync(BLOCKED);
  await here.pool.views.settle();
  assert.equal(pool.views.threads()[0]?.restarts, 0);
});

test('a worker that waits for what does not come is ended and replaced in the end', LIMIT, async () => {
  await using here = await world(FAULTY, 1, 500);
  const { pool } = here;
  here.inject('block', 'worker-1');
  await here.until(() => pool.views.threads()[0]?.restarts === 1);
  rmSync(BLOCKED);
  await here.until(() => running(pool) === 1);
  assert.equal(await here.restarts('hung'), 1);
});

test('a worker that ends again and again is started later each time, and the agent is told', LIMIT, async () => {
  await using here = await world(FAULTY, 1);
  const { pool, health } = here;
  for (let death = 1; death <= 3; death++) {
    await here.until(() => running(pool) === 1);
    here.inject('throw', 'worker-1');
    await here.until(() => pool.views.threads()[0]?.restarts === death);
  }
  assert.deepEqual(health, [true, false]);
});

test('a pool whose workers cannot begin rejects and says why, with no thread left', LIMIT, async () => {
  await assert.rejects(world(BROKEN, 2), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'CV-WORKER');
    assert.match(error.message, /worker-[12] did not start \(defect\): it cannot begin/);
    return true;
  });
});

test('a change of the log filter reaches workers, running and to come', LIMIT, async () => {
  await using here = await world(FAULTY, 1);
  here.pool.setLogFilter('off');
  await here.pool.views.settle();
  here.inject('throw', 'worker-1');
  await here.until(() => here.pool.views.threads()[0]?.restarts === 1);
  assert(!here.lines.some((line) => line.includes('defect, the worker ends')));
});
