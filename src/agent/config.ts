/** Every setting of the agent. Resolved once, at start; nothing else in `src/` may look at the environment. */
import { type ConfigIssue, type Environment, SettingsReader } from './settings-reader.ts';

export interface AgentConfig {
  /** Kubernetes node this agent serves: workloads with this `node` are local. */
  readonly nodeName: string;
  readonly network: string;
  readonly clusterId: string;
  /** Local mesh state (facts/operations.md §6.5). */
  readonly meshFile: string;
  /** File or directory that lists the pods to enrol. */
  readonly podsPath: string;
  /** Directory of the embedded CA; shared by all agents of the mesh. */
  readonly caDir: string;
  /** Lock and state of this agent; one per node. */
  readonly runDir: string;
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  readonly isIpv6Enabled: boolean;
  /** SO_MARK; the redirection rules know it (0x539). */
  readonly packetMark: number;
  readonly isReusePort: boolean;
  /** `undefined` = keep the client's address when the kernel lets us. */
  readonly isOrigSrcEnabled: boolean | undefined;
  readonly keepalive: { readonly idleMs: number; readonly intervalMs: number; readonly probes: number } | undefined;
  readonly isUserTimeoutEnabled: boolean;
  readonly poolMaxStreams: number;
  readonly poolIdleReleaseMs: number;
  readonly http2: {
    readonly streamWindowBytes: number;
    readonly connectionWindowBytes: number;
    readonly frameBytes: number;
  };
  readonly isResponseBaggageEnabled: boolean;
  readonly isLocalhostAppTunnelEnabled: boolean;
  readonly certificateTtlMs: number;
  /** How long open connections may finish after SIGTERM; under the pod's terminationGracePeriodSeconds. */
  readonly drainGraceMs: number;
  /** How often the rules in each pod are compared with what is wanted. */
  readonly verifyPeriodMs: number;
  readonly idleTimeoutMs: number;
  readonly halfClosedTimeoutMs: number;
  readonly maxConnectionsPerPod: number;
  readonly logFilter: string;
  readonly logFormat: 'text' | 'json';
  readonly isPolicyLogAtInfo: boolean;
}

export type ConfigResult =
  | { readonly ok: true; readonly config: AgentConfig }
  | { readonly ok: false; readonly issues: readonly ConfigIssue[] };

const MIB = 1024 * 1024;
const DAY_MS = 24 * 3_600_000;
const PORT = { min: 1, max: 65_535 } as const;
/** What is done again and again; zero would be without a pause. */
const PERIOD = { minMs: 100 } as const;
/** The kernel takes whole seconds up to 32,767 (tcp(7)). */
const KEEPALIVE = { minMs: 1_000, maxMs: 32_767_000 } as const;
const AGENT_MARK = 0x539;
const MARK_MASK = 0xfff;

/** Reports every bad setting, not just the first: one restart should be enough to fix them all. */
export function resolveConfig(env: Environment, flags: Environment): ConfigResult {
  const read = new SettingsReader(env, flags);
  const config: AgentConfig = {
    ...identitySettings(read),
    ...placeSettings(read),
    ...socketSettings(read),
    ...tunnelSettings(read),
    ...lifetimeSettings(read),
    ...logSettings(read),
  };
  return read.issues.length === 0 ? { ok: true, config: Object.freeze(config) } : { ok: false, issues: read.issues };
}

function identitySettings(read: SettingsReader) {
  return {
    nodeName: read.required({ flag: 'node', env: 'NODE_NAME' }),
    network: read.text({ flag: 'network', env: 'NETWORK' }, ''),
    clusterId: read.text(
      { env: 'ISTIO_META_CLUSTER_ID' },
      read.text({ flag: 'cluster', env: 'CLUSTER_ID' }, 'Kubernetes'),
    ),
    certificateTtlMs: read.durationMs({ env: 'SECRET_TTL' }, 24 * 3_600_000, { minMs: 1_000, maxMs: 365 * DAY_MS }),
  };
}

function placeSettings(read: SettingsReader) {
  return {
    meshFile: read.required({ flag: 'mesh-file', env: 'LOCAL_XDS_PATH' }),
    podsPath: read.required({ flag: 'pods', env: 'CULVERT_PODS' }),
    caDir: read.text({ flag: 'ca-dir', env: 'CULVERT_CA_DIR' }, '/var/lib/culvert/ca'),
    runDir: read.text({ flag: 'run-dir', env: 'CULVERT_RUN_DIR' }, '/var/run/culvert'),
    adminPort: read.integer({ flag: 'admin-port' }, { fallback: 15_000, ...PORT }),
    statsPort: read.integer({ flag: 'stats-port' }, { fallback: 15_020, ...PORT }),
    readinessPort: read.integer({ flag: 'readiness-port' }, { fallback: 15_021, ...PORT }),
  };
}

function socketSettings(read: SettingsReader) {
  const origSrc = read.oneOf({ env: 'ENABLE_ORIG_SRC' }, ['true', 'false', 'auto'], 'auto');
  const keepalive = {
    idleMs: read.durationMs({ env: 'KEEPALIVE_TIME' }, 180_000, KEEPALIVE),
    intervalMs: read.durationMs({ env: 'KEEPALIVE_INTERVAL' }, 180_000, KEEPALIVE),
    probes: read.integer({ env: 'KEEPALIVE_RETRIES' }, { fallback: 9, min: 1, max: 127 }),
  };
  return {
    isIpv6Enabled: read.bool({ env: 'IPV6_ENABLED' }, true),
    packetMark: packetMark(read),
    isReusePort: read.bool({ env: 'INPOD_PORT_REUSE' }, true),
    isOrigSrcEnabled: origSrc === 'auto' ? undefined : origSrc === 'true',
    keepalive: read.bool({ env: 'KEEPALIVE_ENABLED' }, true) ? keepalive : undefined,
    isUserTimeoutEnabled: read.bool({ env: 'USER_TIMEOUT_ENABLED' }, false),
  };
}

function packetMark(read: SettingsReader): number {
  const mark = read.integer({ env: 'PACKET_MARK' }, { fallback: AGENT_MARK, min: 1, max: 0xffff_ffff });
  if ((mark & MARK_MASK) !== AGENT_MARK) {
    // The agent's own connections would be redirected to itself, without end.
    const problem = `must be ${AGENT_MARK} in its low 12 bits, which is what the rules in pods let pass, got "${mark}"`;
    read.issues.push({ setting: 'PACKET_MARK', problem });
  }
  return mark;
}

function tunnelSettings(read: SettingsReader) {
  return {
    poolMaxStreams: read.integer({ env: 'POOL_MAX_STREAMS_PER_CONNECTION' }, { fallback: 100, min: 1, max: 65_535 }),
    poolIdleReleaseMs: read.durationMs({ env: 'POOL_UNUSED_RELEASE_TIMEOUT' }, 300_000, PERIOD),
    http2: {
      // RFC 9113 §6.9.1: a window is at most 2^31-1; §6.5.2: a frame is 2^14 to 2^24-1.
      streamWindowBytes: read.integer(
        { env: 'HTTP2_STREAM_WINDOW_SIZE' },
        { fallback: 4 * MIB, min: 65_535, max: 2 ** 31 - 1 },
      ),
      connectionWindowBytes: read.integer(
        { env: 'HTTP2_CONNECTION_WINDOW_SIZE' },
        { fallback: 16 * MIB, min: 65_535, max: 2 ** 31 - 1 },
      ),
      frameBytes: read.integer({ env: 'HTTP2_FRAME_SIZE' }, { fallback: MIB, min: 16_384, max: 2 ** 24 - 1 }),
    },
    isResponseBaggageEnabled: read.bool({ env: 'ENABLE_RESPONSE_BAGGAGE' }, true),
    isLocalhostAppTunnelEnabled: read.bool({ env: 'LOCALHOST_APP_TUNNEL' }, true),
  };
}

function lifetimeSettings(read: SettingsReader) {
  const graceSeconds = read.integer({ env: 'TERMINATION_GRACE_PERIOD_SECONDS' }, { fallback: 0, min: 0, max: 86_400 });
  return {
    drainGraceMs: read.durationMs({ flag: 'drain', env: 'CONNECTION_TERMINATION_DEADLINE' }, drainOf(graceSeconds)),
    verifyPeriodMs: read.durationMs({ flag: 'verify-period', env: 'CULVERT_VERIFY_PERIOD' }, 1_000, PERIOD),
    idleTimeoutMs: read.durationMs({ env: 'CULVERT_IDLE_TIMEOUT' }, DAY_MS, PERIOD),
    halfClosedTimeoutMs: read.durationMs({ env: 'CULVERT_HALF_CLOSED_TIMEOUT' }, 3_600_000, PERIOD),
    maxConnectionsPerPod: read.integer(
      { env: 'CULVERT_MAX_CONNECTIONS' },
      { fallback: 50_000, min: 1, max: 10_000_000 },
    ),
  };
}

/** Datapath facts §5.1; a grace period of 0 or none means 5 s. */
function drainOf(graceSeconds: number): number {
  if (graceSeconds === 0) return 5_000;
  return 1_000 * (graceSeconds > 10 ? graceSeconds - 5 : Math.max(graceSeconds - 1, 1));
}

function logSettings(read: SettingsReader) {
  return {
    logFilter: read.text({ flag: 'log-level', env: 'RUST_LOG' }, 'info'),
    logFormat:
      read.text({ flag: 'log-format', env: 'LOG_FORMAT' }, 'text') === 'json' ? ('json' as const) : ('text' as const),
    isPolicyLogAtInfo: read.text({ env: 'AUTHZ_POLICY_INFO_LOGGING' }, '') === 'true',
  };
}
