/** What changes around the connections of a soak: policies, the mesh, certificates and roots, the control plane, pods. */
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { Action } from '../../../src/wire/pb/authorization_pb.ts';
import { LateError, packet } from '../../support/cni-connection.ts';
import { identityOf, NAMESPACE } from '../../support/mesh.ts';
import { Client } from '../../support/mesh-traffic.ts';
import { bounded, eventually, pause, repeat, type Scene } from './actor.ts';
import { PORT } from './connections.ts';

/** Its connections to `VISITED` are cut by a policy, again and again. */
export const DENIED = 'denied';
const VISITED = 'server';
const POLICY = 'denies-one';
/** Namespaces in which pods come and go. */
export const LANES = ['lane1', 'lane2'] as const;
const PODS_PER_CNI_LIFE = 60;
const GHOSTS = 200;

/** A policy cuts a live connection and refuses new ones; without it they are served. Workloads come and go meanwhile. */
export function changePolicies(scene: Scene): Promise<void> {
  const { mesh, cluster, ledger, signal } = scene;
  const dial = async (): Promise<Client> =>
    new Client(await mesh.dial(DENIED, { ip: mesh.pod(VISITED).ip, port: PORT }, 60_000));
  const isServed = async (): Promise<boolean> => {
    using client = await dial();
    client.socket.end('served?');
    return (await client.ended()) === 'end' && client.text === 'served?';
  };
  return repeat('policy', scene, async () => {
    using live = await dial();
    await live.exchange('before', 'before'.length);
    try {
      cluster.istiod.tellPolicy(POLICY, [identityOf(DENIED).slice('spiffe://'.length)], Action.DENY);
      cluster.istiod.tellGhosts(GHOSTS);
      await eventually('the live connection is cut', () => live.isOver);
      await eventually('a new connection is refused', async () => !(await isServed()));
    } finally {
      cluster.istiod.forgetPolicy(POLICY);
      cluster.istiod.forgetGhosts(GHOSTS);
    }
    await eventually('a new connection is served again', isServed);
    ledger.count('policies applied and removed');
    await pause(signal, 1_000);
  });
}

/** The certificate authority is replaced by another, with both roots trusted while certificates of both are about. */
export function rotateRoots(scene: Scene): Promise<void> {
  const { cluster, ledger, signal, lifetimeMs } = scene;
  let current = cluster.istiod.ca.ca;
  return repeat('root', scene, async () => {
    const next = await cluster.newCa();
    cluster.signBy(current, [current, next]);
    await pause(signal, lifetimeMs);
    cluster.signBy(next, [current, next]);
    await pause(signal, lifetimeMs);
    if (signal.aborted) return;
    cluster.signBy(next, [next]);
    current = next;
    ledger.count('roots rotated');
    await pause(signal, lifetimeMs);
  });
}

/** Control plane and CA go, and come back, together. */
export function loseControlPlane(scene: Scene): Promise<void> {
  const { cluster, ledger, signal } = scene;
  const { istiod } = cluster;
  return repeat('control plane', scene, async () => {
    await pause(signal, randomInt(5_000, 20_000));
    if (signal.aborted) return;
    await istiod.ca.suspend();
    await eventually('the streams are lost', () => istiod.ads.counts.streams === 0);
    // Its way back is walked whatever happens.
    await sleep(randomInt(100, 4_000));
    await istiod.ca.resume();
    await eventually('both agents are back', () => istiod.ads.counts.streams === 2);
    ledger.count('control plane lost');
  });
}

/** An agent gets no CPU at all for a while, then goes on; `longestMs` 0: never. */
export async function stallAgents(scene: Scene, longestMs: number): Promise<void> {
  const { mesh, ledger, signal } = scene;
  if (longestMs === 0) return;
  await repeat('stall', scene, async () => {
    const agent = mesh.agents[randomInt(mesh.agents.length)];
    await pause(signal, randomInt(2_000, 10_000));
    agent?.kill('SIGSTOP');
    await pause(signal, randomInt(longestMs / 2, longestMs));
    agent?.kill('SIGCONT');
    ledger.count('agents stopped for a while');
  });
}

/** Pods are added and deleted in a namespace each, and now and then the CNI agent restarts. */
export function churnPods(scene: Scene): Promise<void> {
  const { mesh, cluster, ledger, signal } = scene;
  let pods = 0;
  /** Answers are one behind from then on, in all lanes, until the connection is made anew. */
  let isLate = false;
  const lane = async (name: string): Promise<void> => {
    const connection = await bounded('the CNI agent has a proxy', cluster.cni('n2').synced());
    using netns = linuxSys.openNetns(mesh.pod(name).inside.path);
    for (let i = 0; i < PODS_PER_CNI_LIFE && !signal.aborted && !isLate; i += 1) {
      const uid = `churn-${(pods += 1)}`;
      const workload = { name: uid, namespace: NAMESPACE, serviceAccount: 'churn' };
      try {
        await bounded('a pod is added', connection.send(packet({ kind: 'add', uid, workload }, netns.fd)));
        await pause(signal, 200);
      } finally {
        // Also one whose answer was late: the next cannot have its namespace before.
        await bounded('a pod is deleted', connection.send(packet({ kind: 'del', uid })));
      }
      ledger.count('pods added and deleted');
    }
  };
  /** On a machine that is busy enough. */
  const unlessLate = (error: unknown): void => {
    if (isLate) return;
    if (!(error instanceof LateError) && !messageOf(error).includes('not done within')) throw error;
    isLate = true;
    ledger.count('answers that the CNI agent did not wait for');
  };
  return repeat('pods', scene, async () => {
    isLate = false;
    await Promise.all(LANES.map((name) => lane(name).catch(unlessLate)));
    if (signal.aborted) return;
    for (const cni of cluster.cnis) {
      const count = cni.connectionCount;
      cni.stop();
      await sleep(500);
      cni.start();
      await bounded('the proxy is back at the CNI agent', cni.synced(count));
      ledger.count('CNI agents restarted');
    }
  });
}
