/** `staticConfig` of the dump: the mesh file as it is on disk now, which may be newer or worse than what is in force. */
import { readFileSync, statSync } from 'node:fs';
import { dumpMesh, type MeshDump } from '../model/dump.ts';
import { MeshIndex } from '../model/mesh-index.ts';
import { parseMeshFile } from '../xds/local-file.ts';

/** YAML costs about 5 s per MiB, on the thread that moves everybody's bytes: larger files are shown as loaded. */
const MAX_REREAD_BYTES = 64 * 1024;

type StaticConfig = Pick<MeshDump, 'workloads' | 'services' | 'policies'>;

/** Empty when the file cannot be read or is refused. */
export function staticConfig(path: string, inForce: StaticConfig): Partial<StaticConfig> {
  try {
    if (statSync(path).size > MAX_REREAD_BYTES) return only(inForce);
    const parsed = parseMeshFile(readFileSync(path, 'utf8'));
    return parsed.kind === 'refused' ? {} : only(dumpMesh(new MeshIndex(parsed.state)));
  } catch {
    return {};
  }
}

function only({ workloads, services, policies }: StaticConfig): StaticConfig {
  return { workloads, services, policies };
}
