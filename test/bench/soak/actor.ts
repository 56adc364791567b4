/** One of those who keep the mesh busy: does its work again and again until told to stop. */
import { setTimeout as sleep } from 'node:timers/promises';
import { withDeadline } from '../../../src/base/clock.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import type { IstioCluster } from '../../support/istio-mesh.ts';
import type { TestMesh } from '../../support/mesh.ts';
import type { Ledger } from './ledger.ts';

/** What a loaded machine may take for any one step; only a hang takes longer. */
const PATIENCE_MS = 90_000;

export interface Scene {
  readonly mesh: TestMesh;
  readonly cluster: IstioCluster;
  readonly ledger: Ledger;
  readonly signal: AbortSignal;
  /** Of certificates. */
  readonly lifetimeMs: number;
}

/** Never rejects: what `work` throws is a failure in the ledger, and it is done again. */
export async function repeat(name: string, { ledger, signal }: Scene, work: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    try {
      await work();
    } catch (error) {
      ledger.fail(name, error);
      await pause(signal, 1_000);
    }
  }
}

/** Ends early when it is time to stop. */
export async function pause(signal: AbortSignal, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}

/** Settles as `work` does, or rejects when it does not in the end. */
export async function bounded<T>(what: string, work: Promise<T>): Promise<T> {
  return await withDeadline(
    work,
    systemClock,
    PATIENCE_MS,
    () => new Error(`not in ${PATIENCE_MS / 1_000} s: ${what}`),
  );
}

/** Resolves when `is` holds; rejects when it does not in the end, stop or no stop: a step begun is finished. */
export async function eventually(what: string, is: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  while (!(await is())) {
    if (performance.now() > endMs) throw new Error(`not in ${PATIENCE_MS / 1_000} s: ${what}`);
    await sleep(50);
  }
}
