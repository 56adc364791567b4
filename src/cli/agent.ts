/** `culvert agent`: resolves settings, starts the node agent, and stops it in order on SIGTERM or SIGINT. */
import { availableParallelism, totalmem } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { Command } from 'commander';
import { type Agent, startAgent } from '../agent/agent.ts';
import { boundHoldMemory } from '../agent/hand-over/hold-memory.ts';
import { type AgentConfig, resolveConfig } from '../agent/settings/config.ts';
import type { Environment, Machine, Start } from '../agent/settings/input.ts';
import { reportStart } from '../agent/start-report.ts';
import { orderProcess } from '../agent/thread-order.ts';
import { hasCode, MeshError, messageOf, toMeshError } from '../base/errors.ts';
import { reasonOf } from '../base/reasons.ts';
import { cgroupCpuLimit } from '../sys/cpu-limit.ts';
import { reserveDescriptors } from '../sys/descriptor-table.ts';
import { readBounded } from '../sys/files.ts';
import { linuxSys } from '../sys/linux.ts';
import { selfCheck } from '../sys/self-check.ts';
import { systemClock } from '../sys/system-clock.ts';
import { systemRandom } from '../sys/system-random.ts';
import { FdSink } from '../telemetry/log-sink.ts';
import { type RootLogger, rootLogger } from '../telemetry/logger.ts';
import { EXIT_CONFIG, EXIT_FAILURE } from './exit-codes.ts';
import { VERSION } from './version.ts';

const STDOUT_FD = 1;
/** As long as a timer can be. */
const FOREVER_MS = 2 ** 31 - 1;
/** Istio's mesh configuration, certificates and tokens that settings name. */
const MAX_SETTINGS_BYTES = 1024 * 1024;

const EXAMPLES = `
Examples:
  $ culvert agent --check
  $ culvert agent --node node-1 --mesh-file mesh.yaml --pods pods.yaml --ca-dir /var/lib/culvert/ca

The mesh file is ztunnel's local configuration (workloads, services, policies); the pods file lists what to enrol:
  pods:
  - {uid: pod-1, name: web-0, namespace: shop, serviceAccount: web, netns: /var/run/netns/web-0}

Both are watched. A bad version is refused whole and the last good one stays. Every flag has a variable; see README.md.`;

export function agentCommand(): Command {
  const command = new Command('agent')
    .description('capture the pods of this node and carry their traffic')
    .option(
      '--pods <path>',
      'file or directory that lists the pods to enrol (CULVERT_PODS); without it a CNI agent does',
    )
    .option('--zds <path>', 'socket of the CNI agent (INPOD_UDS; default /var/run/ztunnel/ztunnel.sock)')
    .option('--check', 'say what this machine lacks, and exit')
    .addHelpText('after', EXAMPLES)
    .action(async (options: Options) => {
      if (options['check'] === true) await check();
      else await runAgent(flagsOf(options), { defaults: 'culvert', args: ['agent'] });
    });
  return withAgentOptions(command);
}

/** What every agent can be told, whomever it serves. */
export function withAgentOptions(command: Command): Command {
  return command
    .option('--node <name>', 'Kubernetes node this agent serves (NODE_NAME)')
    .option('--mesh-file <path>', 'workloads, services and policies, YAML or JSON (LOCAL_XDS_PATH)')
    .option('--xds-address <address>', 'control plane that tells the mesh, https://host:port (XDS_ADDRESS)')
    .option('--ca-dir <path>', 'directory of the embedded CA (CULVERT_CA_DIR; default /var/lib/culvert/ca)')
    .option('--cert-dir <path>', 'certificates that something else keeps there, instead of a CA (CULVERT_CERT_DIR)')
    .option('--run-dir <path>', 'lock of this agent, one per node or pod (CULVERT_RUN_DIR; default /var/run/culvert…)')
    .option('--network <id>', 'network of this node (NETWORK)')
    .option('--cluster <id>', 'cluster of this node (CLUSTER_ID; default Kubernetes)')
    .option('--admin-port <port>', 'admin, loopback only (default 15000)')
    .option('--stats-port <port>', 'metrics (default 15020)')
    .option('--readiness-port <port>', 'readiness (default 15021)')
    .option(
      '--drain <duration>',
      'how long connections may finish at stop (CONNECTION_TERMINATION_DEADLINE; default 5s)',
    )
    .option(
      '--take-over <boolean>',
      'take the node over from the agent that serves it (CULVERT_TAKE_OVER; default false)',
    )
    .option(
      '--hold <duration>',
      'how long connections that cannot move to a successor go on (CULVERT_HOLD; default 1h)',
    )
    .option(
      '--same-node-short-cut <choice>',
      'off, or accept-no-network-policy: pods of this node talk past the tunnel (CULVERT_SAME_NODE_SHORT_CUT)',
    )
    .option('--verify-period <duration>', 'how often rules in pods are compared (CULVERT_VERIFY_PERIOD; default 1s)')
    .option('--workers <count>', 'threads that carry traffic: N, N% of the CPUs, auto, or 0 for none (default auto)')
    .option('--budgets <path>', 'what workloads may use, YAML or JSON, watched (CULVERT_BUDGETS)')
    .option('--log-level <filter>', 'for example info or access=debug,info (RUST_LOG)')
    .option('--log-format <format>', 'text or json (LOG_FORMAT)');
}

export type Options = Readonly<Record<string, string | boolean | undefined>>;

/**
 * Node counts read buffers apart from its heap and marks the whole heap for every 64 MiB of them: two thirds of the
 * CPU time of bulk traffic (test/bench). Counted together with the heap they are collected with it.
 *
 * Young objects are collected by the thread that made them alone: it would wait for helpers, whose priority is lower.
 */
const V8_FLAGS = '--external-memory-accounted-in-global-limit --no-parallel-scavenge';

/** Runs one agent until it is told to stop; says what is wrong and sets the exit code when it cannot start. */
export async function runAgent(flags: Environment, start: Pick<Start, 'defaults' | 'args'>): Promise<void> {
  const result = resolveConfig(process.env, flags, { ...start, readText: readSettingsFile, machine: machine() });
  const command = start.args[0] ?? 'agent';
  if (result.ok) {
    await serve(result.config, command);
    return;
  }
  for (const { setting, problem } of result.issues) complain(command, `${setting} ${problem}`);
  complain(command, `see culvert ${command} --help, and the tables of settings in README.md`);
  process.exitCode = EXIT_CONFIG;
}

/** Each line says who speaks: among those of other containers it may stand alone. */
function complain(command: string, text: string): void {
  for (const line of text.split('\n')) process.stderr.write(`culvert ${command}: ${line}\n`);
}

function readSettingsFile(path: string): string | undefined {
  try {
    return readBounded(path, MAX_SETTINGS_BYTES).toString();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

function machine(): Machine {
  // 0 = no limit, or none that is known.
  const limitBytes = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  return {
    cores: availableParallelism(),
    cpuLimit: cgroupCpuLimit(readSettingsFile),
    memoryMib: Math.trunc(Math.min(limitBytes, totalmem()) / 1_048_576),
  };
}

async function serve(config: AgentConfig, command: string): Promise<void> {
  setFlagsFromString(V8_FLAGS);
  orderProcess({ hasWorkers: config.workers > 0 });
  reserveDescriptors(STDOUT_FD);
  // It ends when it says so: while it waits for the lock of an agent that dies, it has nothing open that would keep it.
  setInterval(() => {}, FOREVER_MS);
  const sink = new FdSink(STDOUT_FD, systemClock);
  try {
    const logs = rootLogger({ sink, clock: systemClock, format: config.logFormat, filter: config.logFilter });
    reportStart(config, VERSION, logs);
    catchDefects(logs, sink);
    const quit = Promise.withResolvers<void>();
    const stopped = Promise.race([signalled(), quit.promise.then(() => 'quitquitquit')]);
    const starting = startAgent(config, {
      sys: linuxSys,
      clock: systemClock,
      random: systemRandom,
      logs,
      logFd: sink.fd,
      version: VERSION,
      requestQuit: () => quit.resolve(),
    });
    // A process with the id 1, as in a container, ignores what it has no handler for; and nothing is served yet that could drain.
    const agent = await Promise.race([starting, stopped.then(() => undefined)]);
    if (agent === undefined) logs.scope('agent').info?.('stopped before it had started', { cause: await stopped });
    else await stopWhenTold(agent, logs, stopped);
  } catch (error) {
    sink.flushSync();
    explainFailure(error, command);
  }
  sink.flushSync();
  // Sockets of a forced drain may linger; everything that must be said has been said.
  process.exit();
}

/** Rejects when it cannot serve. */
async function stopWhenTold(agent: Agent, logs: RootLogger, stopped: Promise<string>): Promise<void> {
  // It serves for as long as nobody stops it, or never, and then it says why.
  const failed = agent.serving.then(() => new Promise<never>(() => undefined));
  let cause: string | undefined;
  try {
    cause = await Promise.race([stopped, agent.handedOver.then(() => undefined), failed]);
  } catch (error) {
    await holdTaken(agent, logs, stopped, error);
    throw error;
  }
  if (cause === undefined) await hold(agent, logs, stopped);
  else {
    logs.scope('agent').info?.('draining', { cause, graceMs: agent.config.drainGraceMs });
    await agent.stop();
  }
  logs.scope('agent').info?.('stopped');
}

/** The agent before this one has the node still and serves it; what was taken from it until then is this one's. */
async function holdTaken(agent: Agent, logs: RootLogger, stopped: Promise<string>, error: unknown): Promise<void> {
  const { live } = agent.dataPlane.views.totals();
  if (live === 0) return;
  const { code, message } = toMeshError(error);
  logs.scope('hand-over').error?.('the node was not taken over', { reason: code, error: message, taken: live });
  await hold(agent, logs, stopped);
}

/** Another agent serves the node; this one carries what could not move, until it has ended or the hold time is over. */
async function hold(agent: Agent, logs: RootLogger, stopped: Promise<string>): Promise<void> {
  const { drainGraceMs, holdMs, holdMemoryMib } = agent.config;
  const log = logs.scope('agent');
  log.info?.('holding connections that could not move', { holdMs, holdMemoryMib });
  const { dataPlane } = agent;
  const memory = { clock: systemClock, log, dataPlane, rssBytes: () => process.memoryUsage.rss() };
  using _bound = boundHoldMemory(holdMemoryMib * 1_048_576, memory);
  void stopped.then((cause) => {
    log.info?.('draining', { cause, graceMs: drainGraceMs });
    dataPlane.hasten();
  });
  await agent.stop('held');
}

/** The first SIGTERM or SIGINT drains; a second SIGINT exits at once. */
function signalled(): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let isDraining = false;
  process.on('SIGINT', () => {
    if (isDraining) process.exit(0);
    isDraining = true;
    resolve('SIGINT');
  });
  process.on('SIGTERM', () => {
    isDraining = true;
    resolve('SIGTERM');
  });
  return promise;
}

/** A defect outside any connection: say it, flush it, end. The rules stay, so pods fail closed until the restart. */
function catchDefects(logs: RootLogger, sink: FdSink): void {
  const die = (error: unknown): void => {
    const stack = error instanceof Error ? String(error.stack) : String(error);
    logs.scope('agent').error?.('defect, the agent ends', { reason: 'CV-BUG', stack });
    sink.flushSync();
    process.exit(EXIT_FAILURE);
  };
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);
}

/** Never throws: the process ends after it, whatever keeps it busy. */
function explainFailure(error: unknown, command: string): void {
  if (!(error instanceof MeshError) || error.code === 'CV-BUG') {
    const stack = error instanceof Error ? String(error.stack) : String(error);
    complain(command, `defect, the agent ends: ${stack}`);
    process.exitCode = EXIT_FAILURE;
    return;
  }
  complain(command, `${error.code}: ${messageOf(error)}`);
  complain(command, reasonOf(error.code).next);
  process.exitCode = error.code === 'CV-CONFIG' || error.code === 'CV-MESH-FILE' ? EXIT_CONFIG : EXIT_FAILURE;
}

async function check(): Promise<void> {
  const findings = await selfCheck(linuxSys);
  for (const { name, ok, purpose, cure, detail } of findings) {
    const state = ok ? 'ok     ' : 'missing';
    process.stdout.write(
      `${state}  ${name}  (${purpose})${ok ? '' : `: ${cure}`}${detail === undefined ? '' : ` [${detail}]`}\n`,
    );
  }
  if (findings.some(({ ok }) => !ok)) process.exitCode = EXIT_FAILURE;
}

/** Commander gives camel case; settings know flags as they are typed. */
export function flagsOf(options: Options): Record<string, string> {
  const entries = Object.entries(options).flatMap(([name, value]) =>
    typeof value === 'string' ? [[name.replace(/[A-Z]/g, (upper) => `-${upper.toLowerCase()}`), value] as const] : [],
  );
  return Object.fromEntries(entries);
}
