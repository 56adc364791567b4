/** The mesh told piece by piece, as somebody asks (`XDS_ON_DEMAND`). */
import type { MeshIndex } from './mesh-index.ts';

/** A source of mesh state that tells what it is asked for. */
export interface MeshDemand {
  /**
   * Resolves when the source has answered and what it told is applied; nothing may be behind `key` then. Rejects when it
   * cannot answer, or once `signal` is aborted. `key`: `network/address` or `namespace/hostname`.
   */
  fetch(key: string, signal: AbortSignal): Promise<void>;
}

/**
 * Key to ask for before anything is decided about an address; `undefined` when the very address is known. A range that
 * holds it is not enough: a pod inside would be reached in plaintext.
 */
export function addressKey(index: MeshIndex, network: string, ip: string): string | undefined {
  const isKnown =
    index.services.byVip(network, ip) !== undefined || index.workloads.byAddress(network, ip) !== undefined;
  return isKnown ? undefined : `${network}/${ip}`;
}
