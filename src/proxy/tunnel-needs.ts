/** Tunnels that suspended streams will go on in, opened before they are needed: a handshake takes longer than all the rest of a move. */
import { type Clock, delay, withDeadline } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { keyText, type TunnelKey } from '../tunnel/client-pool.ts';
import type { TunnelPool } from './connect.ts';
import type { Connections } from './connections.ts';
import type { TunnelNeed, TunnelNeeds } from './inheritance.ts';

/** Longest wait for tunnels before streams move; everything flows meanwhile. */
const WARM_OUT_MS = 1_000;
const WARM_IN_MS = 500;
const WARM_LOOK_MS = 2;

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

export interface WarmDeps {
  readonly clock: Clock;
  readonly pool: TunnelPool;
  /** Of tunnels that peers open. */
  readonly server: { readonly tunnelCount: number };
}

/** Opens the tunnels that streams on their way to this process will go on in, and waits a moment for those of others. */
export async function warmTunnels(
  { out, in: incoming }: TunnelNeeds,
  { clock, pool, server }: WarmDeps,
): Promise<void> {
  const late = (): MeshError => new MeshError('CV-TUNNEL-TIMEOUT', 'tunnels are not waited for any longer');
  const opened = Promise.all(out.map(({ key, streams }) => pool.warm(key, streams)));
  await withDeadline(opened, clock, WARM_OUT_MS, late).catch(() => undefined);
  const endMs = clock.monotonicMs() + WARM_IN_MS;
  while (server.tunnelCount < incoming && clock.monotonicMs() < endMs) await delay(clock, WARM_LOOK_MS);
}
