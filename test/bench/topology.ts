/**
 * Two nodes as network namespaces joined by one veth, and per column a client pod on the first and a server pod on the
 * second. Everything is made inside named namespaces; the host's own network is never touched.
 *
 *   client pod ── veth ── node 1 ── veth ── node 2 ── veth ── server pod
 *
 * Each column has pods of its own: capture in one cannot reach the traffic of another, and TIME_WAIT sockets of one
 * never cost another a port.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import type { Cleanup } from './cleanup.ts';
import { type Place, run } from './command.ts';

export interface Pod extends Place {
  readonly ip: string;
  readonly node: Place;
}

export interface PodPair {
  readonly client: Pod;
  readonly server: Pod;
}

export interface Topology {
  readonly nodes: readonly [Place, Place];
  /** The client pod is always on the first node. */
  addPair(index: number, isSameNode: boolean): Promise<PodPair>;
}

/** Ephemeral ports start above the mesh's own 15000s, so that an outgoing connection never takes one of those. */
const SYSCTLS = ['net.ipv4.ip_forward=1', 'net.ipv4.ip_local_port_range=16384 65535', 'net.core.somaxconn=4096'];

/**
 * A new namespace inherits the host's congestion control. BBR, common on cloud images, paces even over a veth and adds
 * tails of 100 ms that belong to no proxy. CUBIC is the kernel's default, but a host that chose another may forbid it
 * to namespaces; Reno is always allowed, and without loss the two do the same.
 */
async function setCongestionControl(place: Place): Promise<void> {
  const set = (name: string): Promise<string> =>
    run(['sysctl', '-qw', `net.ipv4.tcp_congestion_control=${name}`], place);
  await set('cubic').catch(() => set('reno'));
}

async function addNamespace(cleanup: Cleanup, place: Place): Promise<void> {
  // Before it exists: an interrupt may come while it is being made.
  cleanup.add(() => {
    spawnSync('ip', ['netns', 'del', place.netns]);
  });
  await run(['ip', 'netns', 'add', place.netns]);
  await run(['ip', '-n', place.netns, 'link', 'set', 'lo', 'up']);
  for (const sysctl of SYSCTLS) await run(['sysctl', '-qw', sysctl], place);
  await setCongestionControl(place);
}

interface LinkEnd {
  readonly netns: string;
  readonly device: string;
  readonly address: string;
}

async function join(near: LinkEnd, far: LinkEnd): Promise<void> {
  const make = ['link', 'add', 'name', near.device, 'type', 'veth', 'peer', 'name', far.device, 'netns', far.netns];
  await run(['ip', '-n', near.netns, ...make]);
  for (const end of [near, far]) {
    await run(['ip', '-n', end.netns, 'addr', 'add', end.address, 'dev', end.device]);
    await run(['ip', '-n', end.netns, 'link', 'set', end.device, 'up']);
  }
}

async function addPod(cleanup: Cleanup, pod: Pod, gateway: string): Promise<void> {
  await addNamespace(cleanup, pod);
  const device = `p${pod.ip.replaceAll('.', '')}`;
  await join(
    { netns: pod.node.netns, device, address: `${gateway}/30` },
    { netns: pod.netns, device: 'eth0', address: `${pod.ip}/30` },
  );
  await run(['ip', '-n', pod.netns, 'route', 'add', 'default', 'via', gateway]);
}

/** With `isPinned` each node owns one core: less noise, but nothing may borrow the other node's idle time. */
export async function buildTopology(cleanup: Cleanup, isPinned: boolean): Promise<Topology> {
  const id = randomBytes(4).toString('hex');
  const cpu = (node: number): Pick<Place, 'cpu'> => (isPinned ? { cpu: node - 1 } : {});
  const near: Place = { netns: `cvb-${id}-n1`, ...cpu(1) };
  const far: Place = { netns: `cvb-${id}-n2`, ...cpu(2) };
  await addNamespace(cleanup, near);
  await addNamespace(cleanup, far);
  await join(
    { netns: near.netns, device: 'wire', address: '10.70.0.1/30' },
    { netns: far.netns, device: 'wire', address: '10.70.0.2/30' },
  );
  await run(['ip', '-n', near.netns, 'route', 'add', '10.72.0.0/16', 'via', '10.70.0.2']);
  await run(['ip', '-n', far.netns, 'route', 'add', '10.71.0.0/16', 'via', '10.70.0.1']);
  return {
    nodes: [near, far],
    async addPair(index, isSameNode) {
      const client: Pod = { netns: `cvb-${id}-c${index}`, ip: `10.71.${index}.2`, node: near, ...cpu(1) };
      const place = isSameNode ? { node: near, ...cpu(1) } : { node: far, ...cpu(2) };
      const subnet = isSameNode ? `10.71.${100 + index}` : `10.72.${index}`;
      const server: Pod = { netns: `cvb-${id}-s${index}`, ip: `${subnet}.2`, ...place };
      await addPod(cleanup, client, `10.71.${index}.1`);
      await addPod(cleanup, server, `${subnet}.1`);
      return { client, server };
    },
  };
}
