/** What `culvert top` shows: rates between two looks at an agent, sorted. Pure. */
import type { UsageView } from '../agent/admin/views.ts';
import type { Lane } from '../model/lane.ts';
import type { NamedUse, USE_TOTALS } from '../telemetry/workload-use.ts';

export interface TopRow {
  /** `namespace/pod`. */
  readonly workload: string;
  readonly connections: number;
  readonly newPerSecond: number;
  readonly handshakesPerSecond: number;
  readonly pendingHandshakes: number;
  /** To its applications, and from them. */
  readonly inBytesPerSecond: number;
  readonly outBytesPerSecond: number;
  /** Of one core: 1 is all of it. */
  readonly cpu: number;
  readonly bufferedBytes: number;
  /** Turns it lost to others because it had used up its own. */
  readonly heldPerSecond: number;
  readonly lane: Lane;
}

export const SORT_KEYS = {
  cpu: 'cpu',
  connections: 'connections',
  new: 'newPerSecond',
  handshakes: 'handshakesPerSecond',
  in: 'inBytesPerSecond',
  out: 'outBytesPerSecond',
  memory: 'bufferedBytes',
  held: 'heldPerSecond',
} as const satisfies Record<string, keyof TopRow>;

export type SortKey = keyof typeof SORT_KEYS;

/** Largest first; equal ones by name, so that they keep their places. */
export function topRows(before: UsageView, now: UsageView, sort: SortKey): readonly TopRow[] {
  const seconds = (now.atMs - before.atMs) / 1_000;
  const former = new Map(before.workloads.map((use) => [use.podUid, use]));
  const rows = now.workloads.map((use) => rowOf(former.get(use.podUid), use, seconds));
  const field = SORT_KEYS[sort];
  return rows.toSorted((a, b) => b[field] - a[field] || (a.workload < b.workload ? -1 : 1));
}

/** A pod that was not there before has done all of it since. One whose numbers went back is another by the same name. */
function rowOf(before: NamedUse | undefined, now: NamedUse, seconds: number): TopRow {
  const rate = (field: (typeof USE_TOTALS)[number]): number => {
    const gained = now[field] - (before?.[field] ?? 0);
    return seconds > 0 ? Math.max(0, gained) / seconds : 0;
  };
  return {
    workload: now.namespace === '' ? now.pod : `${now.namespace}/${now.pod}`,
    connections: now.openConnections,
    newPerSecond: rate('connections'),
    handshakesPerSecond: rate('handshakes'),
    pendingHandshakes: now.pendingHandshakes,
    inBytesPerSecond: rate('receivedBytes'),
    outBytesPerSecond: rate('sentBytes'),
    cpu: rate('loopSeconds'),
    bufferedBytes: now.bufferedBytes,
    heldPerSecond: rate('heldTurns'),
    lane: now.lane,
  };
}
