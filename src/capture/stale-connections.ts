/**
 * Connections of a pod that go past the agent although the pod is captured: made before the rules came, or while they were
 * gone. They would end anyhow, but late and badly: conntrack takes their next packet for a new connection and translates it
 * to a listener that knows nothing of them, and an application that only waits would wait for ever. Pure.
 */
import { type HostPort, isLoopback } from '../base/ip.ts';
import { PORTS } from '../model/ports.ts';
import type { TcpSocket } from '../sys/sys.ts';
import { AGENT_MARK, MARK_MASK, PROBE_ADDRESSES } from './redirect-rules.ts';

/** Ports where the agent takes what the application sent to someone else. */
const CAPTURE_PORTS: ReadonlySet<number> = new Set([PORTS.outbound, PORTS.dns]);

/** Never the agent's own, never those it carries, never those within the pod, nor those that are not to be captured. */
export function staleConnections(
  sockets: readonly TcpSocket[],
  { isIngressMode }: { readonly isIngressMode: boolean },
): TcpSocket[] {
  const agents = sockets.filter(isAgents);
  const others = sockets.filter((socket) => !isAgents(socket));
  const carried = new Set(agents.map(twinText));
  const ownIps = new Set(others.map(({ local }) => local.ip));
  const served = new Set(others.filter(({ isListener }) => isListener).map(({ local }) => local.port));
  return others.filter(
    ({ isListener, local, peer }) =>
      !isListener &&
      !isLoopback(peer.ip) &&
      !PROBE_ADDRESSES.has(peer.ip) &&
      !ownIps.has(peer.ip) &&
      !carried.has(endText(local)) &&
      !carried.has(pairText(local, peer)) &&
      !(isIngressMode && served.has(local.port)),
  );
}

function isAgents({ mark }: TcpSocket): boolean {
  return (mark & Number(MARK_MASK)) === Number(AGENT_MARK);
}

/** How the application's end of a connection to this socket looks: translated ones are known by their client end alone. */
function twinText({ local, peer }: TcpSocket): string {
  return CAPTURE_PORTS.has(local.port) ? endText(peer) : pairText(peer, local);
}

function pairText(local: HostPort, peer: HostPort): string {
  return `${endText(local)} ${endText(peer)}`;
}

function endText({ ip, port }: HostPort): string {
  return `${ip}|${port}`;
}
