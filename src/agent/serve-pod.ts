/** Serving a pod: a captured one, or the agent's own. The verdict authority knows it exactly as long as its listeners are open. */
import type { ProxySet } from '../capture/capture-contract.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import type { DataPlane, ServedPod } from './data-plane.ts';
import { type Estate, estateKey } from './hand-over/estate.ts';
import type { NodeLease } from './hand-over/lease.ts';
import type { MeshSource } from './mesh-source.ts';
import type { NodeSettings } from './settings/node.ts';
import type { EnrolledPod } from './verdicts/local-pods.ts';
import type { VerdictAuthority } from './verdicts/verdict-authority.ts';

export interface ServingParts {
  readonly authority: VerdictAuthority;
  readonly mesh: Pick<MeshSource, 'follow'>;
  readonly dataPlane: DataPlane;
  readonly estate: Estate;
  readonly lease: NodeLease;
}

export async function servePod(
  pod: EnrolledPod & ServedPod,
  netns: Netns,
  { authority, mesh, dataPlane, estate, lease }: ServingParts,
): Promise<ProxySet> {
  authority.addPod(pod);
  const kept = new DisposableStack();
  kept.defer(() => authority.removePod(pod));
  kept.use(mesh.follow(pod));
  try {
    const key = estateKey(pod, netns);
    const { listeners, needs } = await lease.inherit(key);
    const proxy = await estate.serve(pod, netns, dataPlane, { listeners, connections: [] });
    // The pod is served: who enrols it need not wait for what it had before.
    void lease.follow(key, proxy, needs);
    return {
      stop: async (mode) => {
        await proxy.stop(mode);
        kept.dispose();
      },
    };
  } catch (error) {
    kept.dispose();
    throw error;
  }
}

const OWN_NETNS = '/proc/self/ns/net';
/** No UID of Kubernetes looks like this. */
const OWN_UID = 'agent';

/**
 * HBONE on 15008 in the netns of the agent, when it knows which pod it runs in: captured scrapers reach its metrics by
 * mutual TLS, as they reach any workload.
 */
export async function serveSelf(
  { podName, namespace, serviceAccount }: NodeSettings['self'],
  { sys }: { readonly sys: Sys },
  parts: ServingParts,
): Promise<ProxySet | undefined> {
  if (podName === undefined || namespace === undefined || serviceAccount === undefined) return undefined;
  const pod = { uid: OWN_UID, name: podName, namespace, serviceAccount, isAgent: true };
  const netns = sys.openNetns(OWN_NETNS);
  try {
    const proxy = await servePod(pod, netns, parts);
    return {
      stop: async (mode) => {
        await proxy.stop(mode);
        netns[Symbol.dispose]();
      },
    };
  } catch (error) {
    netns[Symbol.dispose]();
    throw error;
  }
}
