/** The data plane in a thread of its own: listeners, tunnels and relays of all pods, fed by the main thread through one port. */
import { flushCompileCache } from 'node:module';
import process from 'node:process';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { TlsContexts } from '../../identity/tls-context.ts';
import { Generation } from '../../model/generation.ts';
import type { Refusal } from '../../model/verdict.ts';
import { collectGarbage } from '../../sys/garbage.ts';
import { linuxSys } from '../../sys/linux.ts';
import { lastLoopTime, systemLoopTime, threadCpuMs } from '../../sys/loop-time.ts';
import { useOwnNetnsFd } from '../../sys/netns.ts';
import { systemClock } from '../../sys/system-clock.ts';
import { systemRandom } from '../../sys/system-random.ts';
import { threadUsage } from '../../sys/thread-usage.ts';
import { ConnectionRecords } from '../../telemetry/connection-records.ts';
import { DnsGainCounter } from '../../telemetry/dns-gains.ts';
import { DnsRecords } from '../../telemetry/dns-records.ts';
import { LogBatch } from '../../telemetry/log-batch.ts';
import { FdSink } from '../../telemetry/log-sink.ts';
import { rootLogger } from '../../telemetry/logger.ts';
import { TrafficReporter } from '../../telemetry/traffic-report.ts';
import { PodProxies } from '../pod-proxies.ts';
import { watchThread } from '../quiet-thread.ts';
import { ThreadInspector } from '../thread-inspector.ts';
import { BusyPods, type LookTime } from './busy-pods.ts';
import { CachedVerdicts } from './cached-verdicts.ts';
import { Heartbeat } from './heartbeat.ts';
import { type Item, PortLink } from './port-link.ts';
import { EXIT_DEFECT, type MainCalls, type WorkerCalls, type WorkerReport, type WorkerStart } from './protocol.ts';
import { Reporter } from './reporter.ts';
import { TicketLedger } from './ticket-ledger.ts';
import { WorkerPods } from './worker-pods.ts';

/** How often the event loop shows that it turns. */
const BEAT_MS = 250;
/** Bytes of open connections are reported at least so often. */
const BEATS_PER_REPORT = 4;
const DEFECT: Refusal = { code: 'CV-BUG', text: 'connection closed: a defect ended the worker that carried it' };

if (parentPort === null) throw new Error('worker-thread.ts is not a program of its own');
run(parentPort, workerData as WorkerStart);

function run(port: MessagePort, start: WorkerStart): void {
  useOwnNetnsFd(start.netnsFd);
  const clock = systemClock;
  const news = (): void => reporter.news();
  const batch = new LogBatch(news, new FdSink(start.logFd, clock));
  const logs = rootLogger({ sink: batch, clock, format: start.logFormat, filter: start.logFilter });
  const counts = new TrafficReporter(() => clock.wallMs(), news);
  const records = new ConnectionRecords({
    metrics: counts,
    accessLog: logs.scope('access'),
    clock,
    earlyPrefix: `early-${systemRandom.hex(2)}`,
  });
  const inspector = new ThreadInspector();
  const dnsCounts = new DnsGainCounter(news);
  const ledger = new TicketLedger(news);
  const take = (): WorkerReport => ({
    traffic: counts.take(),
    dns: dnsCounts.take(),
    lines: batch.take(),
    ...ledger.take(),
  });
  const link: PortLink<WorkerCalls, MainCalls> = new PortLink<WorkerCalls, MainCalls>(
    (items) => port.postMessage(items),
    {
      startPod: (start) => pods.start(start),
      needs: (id) => pods.needs(id),
      warm: (needs) => pods.warm(needs),
      leaveListeners: (id) => pods.leaveListeners(id),
      rest: (id) => pods.rest(id),
      moveSome: (id) => pods.moveSome(id),
      adopt: (adoption) => pods.adopt(adoption),
      surrender: (claim) => proxies.surrender(claim),
      hasten: () => proxies.hasten(),
      shed: (count) => proxies.shed(count),
      trim: () => collectGarbage(),
      stopPod: (stop) => pods.stop(stop),
      connections: () => ({ open: proxies.withObstacles(records.live()), refused: records.recentRefusals() }),
      usage: () => proxies.usage(),
      find: (id) => records.find(id),
      holdings: () => ({
        ...threadUsage(),
        maps: { ...proxies.sizes, open_records: records.totals().live },
        caches: { ...verdicts.sizes, tls_contexts: contexts.size },
      }),
      settle: () => reporter.settle(),
      setBudgets: (table) => proxies.setBudgets(table),
      setLogFilter: (filter) => logs.follow(filter),
      inspect: (inspection) => inspector.inspect(inspection),
      push: (push) => verdicts.receive(push),
      finish: async () => {
        records.sumUp();
        await reporter.settle();
        process.exit(0);
      },
    },
  );
  const reporter = new Reporter({ clock, take, send: (report) => link.call('report', report) });
  const verdicts = new CachedVerdicts({
    link,
    generation: new Generation(start.generation),
    certificateGeneration: new Generation(start.certificateGeneration),
    ledger,
    clock,
    random: systemRandom,
  });
  const onAttack = (podUid: string): boolean => {
    link.tell('attacked', podUid);
    return start.lane === 'common';
  };
  const contexts = new TlsContexts(start.tls);
  const proxies = new PodProxies({
    settings: start.settings,
    drainGraceMs: start.drainGraceMs,
    holdMs: start.holdMs,
    loopTime: start.lane === 'greedy' ? lastLoopTime : systemLoopTime,
    deps: {
      sys: linuxSys,
      clock,
      random: systemRandom,
      verdicts,
      contexts,
      telemetry: records,
      dns: new DnsRecords({ metrics: dnsCounts, log: logs.scope('dns'), clock }),
      log: logs.scope('proxy'),
      onAttack: start.lane && onAttack,
      elsewhere: { claim: (claim) => link.call('claim', claim) },
    },
  });
  if (start.budgets !== undefined) proxies.setBudgets(start.budgets);
  const pods = new WorkerPods(proxies);
  watchThread(clock);
  port.on('message', (items: readonly Item[]) => {
    proxies.loop.nobody();
    link.receive(items);
  });
  /** Each connection gets its line and its numbers, and then the thread ends: nobody knows what else is wrong in it. */
  const die = (error: unknown): void => {
    const stack = error instanceof Error ? String(error.stack) : String(error);
    logs.scope('agent').error?.('defect, the worker ends', { worker: start.name, reason: 'CV-BUG', stack });
    records.endAll(DEFECT);
    link.tell('report', take());
    process.exit(EXIT_DEFECT);
  };
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);
  const time = (): LookTime => ({ nowMs: clock.monotonicMs(), cpuMs: threadCpuMs() });
  const busyPods = new BusyPods(time());
  beat(new Heartbeat(start.beat), () => {
    if (records.totals().live > 0) news();
    if (start.lane === undefined) return;
    const busy = busyPods.look(proxies.usage(), time());
    if (busy !== undefined) link.tell('busy', busy);
  });
  link.tell('ready', undefined);
  // Where one is kept (NODE_COMPILE_CACHE), the next thread begins with less than half of the work. Node does so at the end only.
  flushCompileCache();
}

function beat(heart: Heartbeat, onReportDue: () => void): void {
  systemClock.after(BEAT_MS, () => {
    if (heart.beat() % BEATS_PER_REPORT === 0) onReportDue();
    beat(heart, onReportDue);
  });
}
