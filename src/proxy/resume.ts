/** Connections that another process of this node carried until now: judged again, then relayed on. */
import type net from 'node:net';
import { toMeshError } from '../base/errors.ts';
import { reasonOf } from '../base/reasons.ts';
import { POLICY_CHANGED } from '../model/inbound-verdict.ts';
import type { Refusal } from '../model/verdict.ts';
import { adoptTcp, resetSocket } from '../sys/tcp.ts';
import type { InheritedConnection } from './inheritance.ts';
import type { PodContext } from './pod-context.ts';

/** Owns the descriptors. Nothing flows before the verdict, which may have changed. Rejects only by a defect. */
export async function resumeConnection(
  context: PodContext,
  { start, sockets, pausedAtMs }: InheritedConnection,
): Promise<void> {
  const { sys, clock, verdicts, telemetry } = context.deps;
  const downstream = adoptTcp(sys, sockets.downstream);
  const upstream = adoptOther(context, sockets.upstream, downstream);
  context.hold(downstream, start.direction);
  if (start.direction === 'inbound') {
    const verdict = await context.judgeOpen({ connectionId: start.id, peer: start.src, local: start.dst });
    if (verdict.kind === 'refuse') {
      context.refuse({ start, refusal: refusalOfOpen(verdict.refusal), labels: start.labels });
      resetSocket(downstream);
      resetSocket(upstream);
      return;
    }
  }
  const release = start.direction === 'inbound' ? () => verdicts.release(start.id) : undefined;
  context.open(start, context.streamOf(downstream), release).join(context.streamOf(upstream));
  telemetry.moved(start, Math.max(0, clock.wallMs() - pausedAtMs));
}

/** What a policy forbids was allowed before. */
function refusalOfOpen(refusal: Refusal): Refusal {
  return reasonOf(refusal.code).fault === 'policy' ? POLICY_CHANGED : refusal;
}

function adoptOther(context: PodContext, fd: number, first: net.Socket): net.Socket {
  try {
    return adoptTcp(context.deps.sys, fd);
  } catch (error) {
    first.destroy();
    throw toMeshError(error);
  }
}
