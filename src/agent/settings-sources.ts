/** Where the agent learns of the mesh and of the pods of its node: one answer to each. */
import type { LocalMesh } from '../xds/mesh-file.ts';
import type { SettingsReader } from './settings-reader.ts';
import { type PodSourceSettings, podSourceSettings } from './settings-zds.ts';

export interface SourceSettings {
  readonly localMesh: LocalMesh;
  readonly podSource: PodSourceSettings;
}

export function sourceSettings(read: SettingsReader): SourceSettings {
  return {
    localMesh: localMesh(read),
    podSource: podSourceSettings(read),
  };
}

/** Mesh state in ztunnel's local form (facts/operations.md §6.5). */
function localMesh(read: SettingsReader): LocalMesh {
  const text = read.optional({ env: 'LOCAL_XDS' });
  const path = { flag: 'mesh-file', env: 'LOCAL_XDS_PATH' };
  if (text === undefined)
    return { kind: 'file', path: read.required(path, 'a file with workloads, services, policies') };
  if (read.isSet(path)) read.refuse({ env: 'LOCAL_XDS' }, 'and a mesh file exclude each other: keep the one you mean');
  return { kind: 'inline', name: 'LOCAL_XDS', text };
}
