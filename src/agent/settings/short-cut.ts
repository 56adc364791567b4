/** Whether connections between two pods of this node may skip the tunnel. */
import type { SettingsReader } from './reader.ts';

export interface ShortCutSettings {
  /** Off unless the operator has said in so many words what is given up. */
  readonly isShortCutAccepted: boolean;
}

const SOURCE = { flag: 'same-node-short-cut', env: 'CULVERT_SAME_NODE_SHORT_CUT' } as const;
const ACCEPTED = 'accept-no-network-policy';

export function shortCutSettings(read: SettingsReader): ShortCutSettings {
  const value = read.text(SOURCE, 'off');
  if (value !== 'off' && value !== ACCEPTED) {
    read.refuse(
      SOURCE,
      `must be off or ${ACCEPTED}, got "${value}": with it no NetworkPolicy sees what pods of a node say to each other, and it is not encrypted. Where that is no loss, say ${ACCEPTED}`,
    );
  }
  return { isShortCutAccepted: value === ACCEPTED };
}
