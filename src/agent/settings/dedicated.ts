/** Dedicated mode: one pod, served from inside it, without a CNI agent. */
import { isSegment } from '../../model/spiffe.ts';
import type { SettingsReader, Source } from './reader.ts';

/** The pod that the agent itself runs in. */
export interface OwnPodSettings {
  readonly kind: 'own';
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  /** Who sends the traffic of the pod to our ports: rules that we write, or somebody else. */
  readonly redirection: 'own' | 'none';
}

const MODE: Source = { flag: 'mode', env: 'PROXY_MODE' };
const POD: Source = { flag: 'workload', env: 'PROXY_WORKLOAD_INFO' };
const REDIRECT: Source = { flag: 'redirect', env: 'CULVERT_REDIRECT' };

export function isDedicated(read: SettingsReader): boolean {
  return read.text(MODE, 'shared') === 'dedicated';
}

/** `undefined` in shared mode. */
export function ownPodSettings(read: SettingsReader): OwnPodSettings | undefined {
  if (read.oneOf(MODE, ['shared', 'dedicated'], 'shared') === 'shared') return undefined;
  const text = read.required(POD, 'namespace/name/serviceAccount of the pod to serve, for example shop/web-0/web');
  const [namespace = '', name = '', serviceAccount = '', ...rest] = text.split('/');
  const isWhole = rest.length === 0 && [namespace, name, serviceAccount].every(isSegment);
  if (text !== '' && !isWhole) read.refuse(POD, `must be namespace/name/serviceAccount, got "${text}"`);
  // In an environment made for ztunnel somebody else redirects, and our rules would redirect once more.
  const redirection = read.oneOf(REDIRECT, ['own', 'none'], read.start.defaults === 'ztunnel' ? 'none' : 'own');
  return { kind: 'own', namespace, name, serviceAccount, redirection };
}
