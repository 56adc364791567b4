/** What happens when one agent takes the place of another on a node. */
import type { SettingsReader } from './reader.ts';
import type { SourceSettings } from './sources.ts';

export interface HandOverSettings {
  /** An agent that serves this node already is asked to hand it over, instead of being an error. */
  readonly isTakeOver: boolean;
  /** How long an agent that has handed its node over carries the connections that could not move. */
  readonly holdMs: number;
  /** Over so much resident memory, it ends idle ones first. */
  readonly holdMemoryMib: number;
}

const HOLD_MS = 3_600_000;
/** Four times an agent without traffic. */
const HOLD_MEMORY = { fallback: 512, min: 1, max: 1_048_576 } as const;

/** As ztunnel's, an update starts the next agent beside the one that serves. */
export function handOverSettings(read: SettingsReader, { podSource }: SourceSettings): HandOverSettings {
  const isUpdated = read.start.defaults === 'ztunnel' && podSource.kind === 'zds';
  return {
    isTakeOver: read.bool({ flag: 'take-over', env: 'CULVERT_TAKE_OVER' }, isUpdated),
    holdMs: read.durationMs({ flag: 'hold', env: 'CULVERT_HOLD' }, HOLD_MS),
    holdMemoryMib: read.integer({ env: 'CULVERT_HOLD_MEMORY' }, HOLD_MEMORY),
  };
}
