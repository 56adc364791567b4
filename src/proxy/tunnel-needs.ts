/** Tunnels that suspended streams will go on in, opened before they are needed: a handshake takes longer than all the rest of a move. */
import { keyText, type TunnelKey } from '../tunnel/client-pool.ts';
import type { Connections } from './connections.ts';
import type { TunnelNeed } from './inheritance.ts';

/** What the streams that are open now would ask for. */
export function neededTunnels(connections: Connections): readonly TunnelNeed[] {
  const needs = new Map<string, { readonly key: TunnelKey; streams: number }>();
  for (const { tunnel } of connections.all()) {
    const key = tunnel?.isMovable === true ? tunnel.key : undefined;
    if (key === undefined) continue;
    const name = keyText(key);
    const need = needs.get(name) ?? { key, streams: 0 };
    needs.set(name, need);
    need.streams += 1;
  }
  return [...needs.values()];
}
