/** The servers of the agent's own netns: admin on loopback, metrics and readiness for everybody (facts/operations.md §5.1). */
import { startAdminServer } from './admin.ts';
import { adminProviders } from './admin-providers.ts';
import type { AgentDeps, AgentParts } from './agent.ts';
import { startReadinessServer } from './readiness.ts';
import { startStatsServer } from './stats.ts';

/** Binds all or rejects with `CV-BIND`; `undo` closes them. */
export async function startServers(parts: AgentParts, deps: AgentDeps, undo: AsyncDisposableStack): Promise<void> {
  const { config, metrics, readiness } = parts;
  const hasIpv6 = config.isIpv6Enabled && deps.sys.hasIpv6(undefined, 'lo');
  const host = hasIpv6 ? '::' : '0.0.0.0';
  undo.use(
    await startReadinessServer({ host, port: config.readinessPort, readiness, log: deps.logs.scope('readiness') }),
  );
  undo.use(await startStatsServer({ host, port: config.statsPort, metrics, log: deps.logs.scope('stats') }));
  const admin = { port: config.adminPort, isIpv6Enabled: hasIpv6, clock: deps.clock, log: deps.logs.scope('admin') };
  undo.use(await startAdminServer({ ...admin, providers: adminProviders(parts, deps) }));
}
