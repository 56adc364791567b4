/** The ports of the agent in its own network namespace, and where it keeps its lock and state. */
import { dirname, join } from 'node:path';
import { PORTS } from '../../model/ports.ts';
import type { SettingsReader } from './reader.ts';
import type { SourceSettings } from './sources.ts';

export interface ServerSettings {
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  /** Lock and state of this agent; one per node, or per pod in dedicated mode. */
  readonly runDir: string;
}

const RANGE = { min: 1, max: 65_535 } as const;

export function serverSettings(read: SettingsReader, sources: SourceSettings): ServerSettings {
  return {
    adminPort: read.integer({ flag: 'admin-port', config: 'proxyAdminPort' }, { fallback: PORTS.admin, ...RANGE }),
    statsPort: read.integer({ flag: 'stats-port', config: 'statsPort' }, { fallback: PORTS.stats, ...RANGE }),
    readinessPort: read.integer({ flag: 'readiness-port' }, { fallback: PORTS.readiness, ...RANGE }),
    runDir: read.text({ flag: 'run-dir', env: 'CULVERT_RUN_DIR' }, defaultRunDir(read, sources)),
  };
}

/**
 * As ztunnel's the agent runs in a pod with a read-only root. Beside the socket of the CNI agent is a folder of the node: what
 * is kept there outlives the pod, and a successor finds the agent it takes over from. Namespaces on one machine may
 * share its file system, and each has a dedicated agent of its own.
 */
function defaultRunDir({ start }: SettingsReader, { podSource }: SourceSettings): string {
  const isZtunnel = start.defaults === 'ztunnel';
  if (isZtunnel && podSource.kind === 'zds') return join(dirname(podSource.socket), 'culvert');
  const suffix = podSource.kind === 'own' ? `-${podSource.namespace}-${podSource.name}` : '';
  return `${isZtunnel ? '/tmp' : '/var/run'}/culvert${suffix}`;
}
