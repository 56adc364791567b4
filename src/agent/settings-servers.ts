/** The ports of the agent in its own network namespace, and where it keeps its lock and state. */
import type { SettingsReader } from './settings-reader.ts';

export interface ServerSettings {
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  /** Lock and state of this agent; one per node. */
  readonly runDir: string;
}

const PORT = { min: 1, max: 65_535 } as const;

/** The pod of ztunnel has a read-only root, and during an update two of them run on a node: only /tmp is its own. */
const RUN_DIR = { culvert: '/var/run/culvert', ztunnel: '/tmp/culvert' } as const;

export function serverSettings(read: SettingsReader): ServerSettings {
  return {
    adminPort: read.integer({ flag: 'admin-port', config: 'proxyAdminPort' }, { fallback: 15_000, ...PORT }),
    statsPort: read.integer({ flag: 'stats-port', config: 'statsPort' }, { fallback: 15_020, ...PORT }),
    readinessPort: read.integer({ flag: 'readiness-port' }, { fallback: 15_021, ...PORT }),
    runDir: read.text({ flag: 'run-dir', env: 'CULVERT_RUN_DIR' }, RUN_DIR[read.start.defaults]),
  };
}
