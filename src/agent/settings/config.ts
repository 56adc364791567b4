/** Every setting of the agent. Resolved once, at start; nothing else in `src/` may look at the environment. */
import { type BudgetSettings, budgetSettings } from './budgets.ts';
import { type DnsSettings, dnsSettings } from './dns.ts';
import { type HandOverSettings, handOverSettings } from './hand-over.ts';
import { type IdentitySettings, identitySettings } from './identity.ts';
import type { ConfigIssue, Environment, Start } from './input.ts';
import { type LaneSettings, laneSettings } from './lanes.ts';
import { type LifetimeSettings, lifetimeSettings } from './lifetimes.ts';
import { type LogSettings, logSettings } from './logs.ts';
import { type NodeSettings, nodeSettings } from './node.ts';
import { SettingsReader } from './reader.ts';
import { type ServerSettings, serverSettings } from './servers.ts';
import { type ShortCutSettings, shortCutSettings } from './short-cut.ts';
import { type SnapshotSettings, snapshotSettings } from './snapshot.ts';
import { type SocketSettings, socketSettings } from './sockets.ts';
import { type SocksSettings, socksSettings } from './socks.ts';
import { type SourceSettings, sourceSettings } from './sources.ts';
import { type TlsSettings, tlsSettings } from './tls.ts';
import { type TunnelSettings, tunnelSettings } from './tunnels.ts';
import { type UnsupportedSettings, unsupportedSettings } from './unsupported.ts';
import { type WorkerSettings, workerSettings } from './workers.ts';
import { type XdsSettings, xdsSettings } from './xds.ts';

/** One area per file; a new one is named here, and read below. */
export interface AgentConfig
  extends NodeSettings,
    SourceSettings,
    XdsSettings,
    IdentitySettings,
    ServerSettings,
    ShortCutSettings,
    SnapshotSettings,
    SocketSettings,
    TunnelSettings,
    TlsSettings,
    UnsupportedSettings,
    DnsSettings,
    SocksSettings,
    LifetimeSettings,
    HandOverSettings,
    LogSettings,
    BudgetSettings,
    WorkerSettings,
    LaneSettings {
  readonly proxyArgs: string;
}

export type ConfigResult =
  | { readonly ok: true; readonly config: AgentConfig }
  | { readonly ok: false; readonly issues: readonly ConfigIssue[] };

const PLAIN_START: Start = { defaults: 'culvert', args: ['agent'], readText: () => undefined };

/** Reports every bad setting, not just the first: one restart should be enough to fix them all. */
export function resolveConfig(env: Environment, flags: Environment, start: Start = PLAIN_START): ConfigResult {
  const read = new SettingsReader(env, flags, start);
  const config = readAll(read);
  return read.issues.length === 0 ? { ok: true, config: Object.freeze(config) } : { ok: false, issues: read.issues };
}

function readAll(read: SettingsReader): AgentConfig {
  const node = nodeSettings(read);
  const xds = xdsSettings(read, node);
  const sources = sourceSettings(read, xds.xds !== undefined);
  const servers = serverSettings(read, sources);
  const sockets = socketSettings(read, sources);
  const budgets = budgetSettings(read);
  const workers = workerSettings(read);
  return {
    ...node,
    ...xds,
    ...sources,
    ...identitySettings(read),
    ...servers,
    ...snapshotSettings(read, servers.runDir),
    ...sockets,
    ...tunnelSettings(read),
    ...tlsSettings(read),
    ...dnsSettings(read),
    ...socksSettings(read),
    ...shortCutSettings(read),
    ...lifetimeSettings(read),
    ...handOverSettings(read, sources),
    ...logSettings(read),
    ...budgets,
    ...workers,
    ...laneSettings(read, { ...sockets, ...budgets, ...workers }),
    ...unsupportedSettings(read),
    proxyArgs: read.start.args.join(' '),
  };
}
