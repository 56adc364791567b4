/** What outlives the agent on disk, so that it restarts without control plane and CA. */
import { join } from 'node:path';
import type { SettingsReader } from './reader.ts';

export interface SnapshotSettings {
  /** Private directory of this node; `undefined` = nothing is kept. */
  readonly snapshotDir: string | undefined;
}

export function snapshotSettings(read: SettingsReader, runDir: string): SnapshotSettings {
  const dir = read.text({ env: 'CULVERT_SNAPSHOT_DIR' }, join(runDir, 'snapshot'));
  return { snapshotDir: read.bool({ env: 'CULVERT_SNAPSHOT' }, true) ? dir : undefined };
}
