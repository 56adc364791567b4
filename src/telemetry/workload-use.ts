/** What workloads use of this agent: plain numbers, and their metrics (`culvert_workload_*`). */
import type { Lane } from '../model/lane.ts';
import type { Family, Sample } from './openmetrics.ts';

/** Totals only grow. */
export const USE_TOTALS = [
  'loopSeconds',
  'connections',
  'handshakes',
  'heldTurns',
  'receivedBytes',
  'sentBytes',
] as const;
/** As of now. */
const USE_NOW = ['openConnections', 'pendingHandshakes', 'bufferedBytes'] as const;

type UseNumber = (typeof USE_TOTALS)[number] | (typeof USE_NOW)[number];

/** One pod, in one thread or in all. */
export type WorkloadUse = { readonly podUid: string } & Readonly<Record<UseNumber, number>>;

/** With the names that people know it by. */
export interface NamedUse extends WorkloadUse {
  readonly namespace: string;
  readonly pod: string;
  /** Which threads serve its new connections. */
  readonly lane: Lane;
}

/** A node has 110 pods by default, some have 500; what is beyond is one row, so that sums stay true. */
const MAX_LABEL_SETS = 1_024;

type FamilyText = readonly [name: string, type: 'counter' | 'gauge', help: string];

const FAMILIES = {
  loopSeconds: ['loop_seconds_total', 'counter', 'Time of the event loops used for this workload'],
  connections: ['connections_total', 'counter', 'Connections that began or were refused'],
  handshakes: ['handshakes_total', 'counter', 'TLS handshakes begun'],
  heldTurns: ['held_turns_total', 'counter', 'Times the workload had used up its turn and had to wait for the next'],
  receivedBytes: ['received_bytes_total', 'counter', 'Bytes that went to the applications of the workload'],
  sentBytes: ['sent_bytes_total', 'counter', 'Bytes that came from the applications of the workload'],
  openConnections: ['connections_open', 'gauge', 'Connections open now'],
  pendingHandshakes: ['handshakes_pending', 'gauge', 'Handshakes in progress or waited for'],
  bufferedBytes: ['buffered_bytes', 'gauge', 'Bytes taken from one side and not yet given to the other'],
} as const satisfies Record<UseNumber, FamilyText>;

const GREEDY: FamilyText = ['greedy', 'gauge', '1 while threads of the greedy lane serve its new connections'];

export class WorkloadUseTable {
  #uses: readonly NamedUse[] = [];

  /** Everything that is known now. */
  replace(uses: readonly NamedUse[]): void {
    const kept = uses.slice(0, MAX_LABEL_SETS);
    const rest = uses.slice(MAX_LABEL_SETS);
    const other = { podUid: '', namespace: 'other', pod: 'other', lane: 'common' } as const;
    this.#uses = rest.length === 0 ? kept : [...kept, { ...sumOf(other.podUid, rest), ...other }];
  }

  families(): readonly Family[] {
    const numbers = [...USE_TOTALS, ...USE_NOW].map((number) =>
      this.#family(FAMILIES[number], ({ [number]: value }) => value),
    );
    return [...numbers, this.#family(GREEDY, ({ lane }) => (lane === 'greedy' ? 1 : 0))];
  }

  #family([name, type, help]: FamilyText, valueOf: (use: NamedUse) => number): Family {
    const samples = this.#uses.map((use): Sample => {
      const { namespace, pod } = use;
      return { labels: { namespace, pod }, value: valueOf(use) };
    });
    return { name: `culvert_workload_${name}`, type, help: `${help} (unstable).`, samples };
  }
}

export function sumOf(podUid: string, uses: readonly WorkloadUse[]): WorkloadUse {
  const total = (number: UseNumber): number => uses.reduce((sum, { [number]: value }) => sum + value, 0);
  return {
    podUid,
    loopSeconds: total('loopSeconds'),
    connections: total('connections'),
    handshakes: total('handshakes'),
    heldTurns: total('heldTurns'),
    receivedBytes: total('receivedBytes'),
    sentBytes: total('sentBytes'),
    openConnections: total('openConnections'),
    pendingHandshakes: total('pendingHandshakes'),
    bufferedBytes: total('bufferedBytes'),
  };
}
