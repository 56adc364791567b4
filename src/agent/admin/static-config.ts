/** `staticConfig` of the dump: the mesh file as it is on disk now, which may be newer or worse than what is in force. */
import { statSync } from 'node:fs';
import { dumpMesh, type MeshDump } from '../../model/dump.ts';
import { MeshIndex } from '../../model/mesh-index.ts';
import { readBounded } from '../../sys/files.ts';
import { parseMeshFile } from '../../xds/local-file.ts';
import type { LocalMesh } from '../../xds/mesh-file.ts';

/** YAML costs about 5 s per MiB, on the thread that moves everybody's bytes: larger files are shown as loaded. */
const MAX_REREAD_BYTES = 64 * 1024;

type StaticConfig = Pick<MeshDump, 'workloads' | 'services' | 'policies'>;

/** Empty without a mesh file, and when it cannot be read or is refused. What came as text cannot have changed. */
export function staticConfig(source: LocalMesh | undefined, inForce: () => StaticConfig): Partial<StaticConfig> {
  if (source === undefined) return {};
  if (source.kind === 'inline') return only(inForce());
  const { path } = source;
  try {
    if (statSync(path).size > MAX_REREAD_BYTES) return only(inForce());
    const parsed = parseMeshFile(readBounded(path, MAX_REREAD_BYTES).toString('utf8'));
    return parsed.kind === 'refused' ? {} : only(dumpMesh(new MeshIndex(parsed.state)));
  } catch {
    return {};
  }
}

function only({ workloads, services, policies }: StaticConfig): StaticConfig {
  return { workloads, services, policies };
}
