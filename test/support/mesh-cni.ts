/** A test mesh whose pods are enrolled by a CNI agent on each node, as in a cluster with istio-cni. */
import { join } from 'node:path';
import { CniAgent, type CniPod } from './cni-agent.ts';
import { type MeshOptions, meshForFile, NAMESPACE, type TestMesh, uidOf } from './mesh.ts';

export interface CniMesh {
  readonly mesh: () => TestMesh;
  /** The CNI agent of a node. */
  readonly cni: (node: string) => CniAgent;
  /** How the CNI agent of its node knows a pod of the lab. */
  readonly cniPod: (name: string) => CniPod;
}

/** One mesh for all tests of a file. The pods to enrol are part of the first snapshot. */
export function cniMeshForFile(options: MeshOptions = {}): CniMesh {
  const agents = new Map<string, CniAgent>();
  const mesh = meshForFile({
    ...options,
    // The name servers of this machine may be of no use in a pod, which would refuse the start.
    env: { ISTIO_META_DNS_CAPTURE: 'false', ...options.env },
    podFlags: (made, node) => ['--zds', join(made.lab.folder, `zds-${node}.sock`)],
    async beforeAgents(made, enrolled) {
      for (const node of made.lab.nodes.keys()) {
        agents.set(node, made.keep(new CniAgent(join(made.lab.folder, `zds-${node}.sock`))));
      }
      for (const name of enrolled) await cniOf(made.pod(name).node).prepare(podOf(made, name));
    },
  });
  const cniOf = (node: string): CniAgent => {
    const agent = agents.get(node);
    if (agent === undefined) throw new Error(`no CNI agent on ${node}`);
    return agent;
  };
  return { mesh, cni: cniOf, cniPod: (name) => podOf(mesh(), name) };
}

function podOf(mesh: TestMesh, name: string): CniPod {
  const netnsPath = mesh.pod(name).inside.path;
  return { uid: uidOf(name), name, namespace: NAMESPACE, serviceAccount: name, netnsPath };
}
