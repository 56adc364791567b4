/** Where the pods to capture come from: a CNI agent, as in a cluster with istio-cni, a list in files, or nowhere: our own. */
import { type OwnPodSettings, ownPodSettings } from './dedicated.ts';
import type { SettingsReader } from './reader.ts';

/** `zds`: the socket of the CNI agent. `file`: a file or directory that lists the pods to enrol. */
export type PodSourceSettings =
  | { readonly kind: 'zds'; readonly socket: string }
  | { readonly kind: 'file'; readonly path: string }
  | OwnPodSettings;

/** What the kernel takes for the path of a unix socket (unix(7)). */
const MAX_PATH_BYTES = 107;

const PODS = { flag: 'pods', env: 'CULVERT_PODS' } as const;
const SOCKET = { flag: 'zds', env: 'INPOD_UDS' } as const;

export function podSourceSettings(read: SettingsReader): PodSourceSettings {
  const own = ownPodSettings(read);
  if (own !== undefined) return own;
  const path = read.optional(PODS);
  if (path === undefined) return { kind: 'zds', socket: socketPath(read) };
  if (read.isSet(SOCKET)) read.refuse(PODS, 'and a socket of a CNI agent exclude each other: keep the one you mean');
  return { kind: 'file', path };
}

function socketPath(read: SettingsReader): string {
  const path = read.optional(SOCKET) ?? '/var/run/ztunnel/ztunnel.sock';
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) read.refuse(SOCKET, `must have at most ${MAX_PATH_BYTES} bytes`);
  return path;
}
