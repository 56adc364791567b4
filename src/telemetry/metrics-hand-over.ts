/** Metrics of one agent taking the place of another: each process counts its own part, so that sums over both are true. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { ConnectionKind } from './traffic.ts';

/** `lost`: the other process ended, or gave it up, in the middle. `refused`: it was sent away before that. */
export type HandOverResult = 'complete' | 'lost' | 'refused';

export interface HandOverMetrics {
  /** Came from the agent before this one. */
  moved(kind: ConnectionKind, pauseMs: number): void;
  /** Went to the next agent. */
  left(kind: ConnectionKind): void;
  /** Stayed here when the next agent took the node. */
  held(kind: ConnectionKind): void;
  /** Stayed here, and was ended by this agent. */
  cut(kind: ConnectionKind): void;
  /** This agent took a node from another, or tried. */
  taken(result: HandOverResult): void;
  /** This agent gave its node to another, or tried. */
  given(result: HandOverResult): void;
  /** What agents before this one still carry; called at every scrape. */
  watchHeld(count: () => number): void;
}

/** From what nobody notices to what times a client out. */
const PAUSE_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5];

export function handOverMetrics(registers: Registry[]): HandOverMetrics {
  const connections = new Counter({
    name: 'culvert_hand_over_connections_total',
    help: 'Connections at a change of agents, by what became of them: moved is counted by the new agent; left, held and cut by the old one (unstable).',
    labelNames: ['fate', 'direction', 'protocol'],
    registers,
  });
  const pause = new Histogram({
    name: 'culvert_hand_over_pause_seconds',
    help: 'How long connections that moved to this agent stood still (unstable).',
    buckets: PAUSE_SECONDS,
    registers,
  });
  const handOvers = new Counter({
    name: 'culvert_hand_overs_total',
    help: 'Changes of agents by the side that this one was on, and how they went (unstable).',
    labelNames: ['role', 'result'],
    registers,
  });
  let heldNow = (): number => 0;
  new Gauge({
    name: 'culvert_held_connections',
    help: 'Connections that agents before this one still carry, because they could not move (unstable).',
    registers,
    collect() {
      this.set(heldNow());
    },
  });
  return {
    moved: ({ direction, protocol }, pauseMs) => {
      connections.inc({ fate: 'moved', direction, protocol });
      pause.observe(pauseMs / 1_000);
    },
    left: ({ direction, protocol }) => connections.inc({ fate: 'left', direction, protocol }),
    held: ({ direction, protocol }) => connections.inc({ fate: 'held', direction, protocol }),
    cut: ({ direction, protocol }) => connections.inc({ fate: 'cut', direction, protocol }),
    taken: (result) => handOvers.inc({ role: 'heir', result }),
    given: (result) => handOvers.inc({ role: 'giver', result }),
    watchHeld: (count) => {
      heldNow = count;
    },
  };
}
