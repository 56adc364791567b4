/** The servers of the agent's own netns: admin on loopback, metrics and readiness for everybody. */

import type { AgentDeps, AgentParts } from '../agent.ts';
import { startAdminServer } from './admin-server.ts';
import { adminProviders } from './providers.ts';
import { startReadinessServer } from './readiness.ts';
import { startStatsServer } from './stats.ts';
import { namedUsage } from './workload-usage.ts';

/** The servers while they are open; a successor that shares our netns needs their ports. */
export class AgentServers implements AsyncDisposable {
  readonly #parts: AgentParts;
  readonly #deps: AgentDeps;
  #open: AsyncDisposableStack | undefined;

  constructor(parts: AgentParts, deps: AgentDeps) {
    this.#parts = parts;
    this.#deps = deps;
  }

  /** Binds all or rejects with `CV-BIND`, with none left open. */
  async start(): Promise<void> {
    await using undo = new AsyncDisposableStack();
    await startServers(this.#parts, this.#deps, undo);
    this.#open = undo.move();
  }

  async stop(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Binds all or rejects with `CV-BIND`; `undo` closes them. */
async function startServers(parts: AgentParts, deps: AgentDeps, undo: AsyncDisposableStack): Promise<void> {
  const { config, dataPlane, readiness } = parts;
  const metrics = {
    render: async () => {
      await dataPlane.views.settle();
      parts.metrics.workloads.replace(await namedUsage(parts));
      return await parts.metrics.render();
    },
  };
  const hasIpv6 = config.isIpv6Enabled && deps.sys.hasIpv6(undefined, 'lo');
  const host = hasIpv6 ? '::' : '0.0.0.0';
  const { clock, logs } = deps;
  const probe = { host, port: config.readinessPort, readiness, clock, log: logs.scope('readiness') };
  undo.use(await startReadinessServer(probe));
  undo.use(await startStatsServer({ host, port: config.statsPort, metrics, clock, log: logs.scope('stats') }));
  const admin = { port: config.adminPort, isIpv6Enabled: hasIpv6, clock, log: logs.scope('admin') };
  undo.use(await startAdminServer({ ...admin, providers: adminProviders(parts, deps) }));
}
