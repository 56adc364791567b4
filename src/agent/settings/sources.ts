/** Where the agent learns of the mesh and of the pods of its node: one answer to each. */
import type { LocalMesh } from '../../xds/mesh-file.ts';
import { type PodSourceSettings, podSourceSettings } from './pods.ts';
import type { SettingsReader } from './reader.ts';

export interface SourceSettings {
  /** Absent: a control plane tells everything. */
  readonly localMesh: LocalMesh | undefined;
  readonly podSource: PodSourceSettings;
}

export function sourceSettings(read: SettingsReader, hasControlPlane: boolean): SourceSettings {
  return {
    localMesh: localMesh(read, hasControlPlane),
    podSource: podSourceSettings(read),
  };
}

/** Mesh state in ztunnel's local form; beside a control plane it adds to what that tells. */
function localMesh(read: SettingsReader, hasControlPlane: boolean): LocalMesh | undefined {
  const text = read.optional({ env: 'LOCAL_XDS' });
  const source = { flag: 'mesh-file', env: 'LOCAL_XDS_PATH' };
  if (text !== undefined) {
    if (read.isSet(source))
      read.refuse({ env: 'LOCAL_XDS' }, 'and a mesh file exclude each other: keep the one you mean');
    return { kind: 'inline', name: 'LOCAL_XDS', text };
  }
  const path = read.optional(source);
  if (path !== undefined) return { kind: 'file', path };
  if (!hasControlPlane)
    read.required(source, 'a file with workloads, services, policies; or set XDS_ADDRESS to a control plane');
  return undefined;
}
