/** Opens the hand-over socket of an agent that serves its node, and joins it to what the agent has. */
import { join } from 'node:path';
import type { AgentServers } from '../admin/servers.ts';
import type { AgentDeps, AgentParts } from '../agent.ts';
import { Giver } from './giver.ts';
import { SOCKET_FILE } from './protocol.ts';

export interface SuccessorParts {
  readonly parts: Pick<AgentParts, 'config' | 'estate' | 'lease' | 'dataPlane' | 'metrics' | 'certificates' | 'mesh'>;
  readonly servers: AgentServers;
  readonly deps: Pick<AgentDeps, 'sys' | 'clock' | 'logs' | 'version'>;
}

/** Resolves when a successor serves this node. `undo` closes the socket. */
export function awaitSuccessor({ parts, servers, deps }: SuccessorParts, undo: AsyncDisposableStack): Promise<void> {
  const { promise: handedOver, resolve: onLeft } = Promise.withResolvers<void>();
  const { config, estate, lease, dataPlane, metrics, certificates, mesh } = parts;
  const listener = deps.sys.listenUnix(join(config.runDir, SOCKET_FILE), { type: 'seqpacket' });
  undo.use(
    new Giver(listener, {
      clock: deps.clock,
      log: deps.logs.scope('hand-over'),
      build: deps.version,
      estate,
      uid: process.getuid?.() ?? 0,
      lock: lease.lock,
      counts: () => {
        const { live, refused } = dataPlane.views.totals();
        return { live, cut: refused['CV-HOLD'] ?? 0 };
      },
      settle: () => dataPlane.views.settle(),
      holdMs: config.holdMs,
      predecessors: () => lease.predecessors,
      claimBefore: (pod, claim) => lease.claim(pod, claim),
      legacy: async () => ({ certificates: certificates.inUse(), meshFd: await mesh.keptFd() }),
      servers: { yield: () => servers.stop(), resume: () => servers.start() },
      onResult: (result) => metrics.handOver.given(result),
      onLeft: () => {
        // What is kept on disk is the successor's from now on.
        certificates.keepNoMore();
        mesh.keepNoMore();
        onLeft();
        void countHeld(parts);
      },
    }),
  );
  return handedOver;
}

async function countHeld({ dataPlane, metrics }: SuccessorParts['parts']): Promise<void> {
  for (const view of (await dataPlane.views.connections()).open) metrics.handOver.held(view);
}
