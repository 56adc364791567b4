/**
 * What a lab consists of, as data: namespaces, addresses and the `ip -batch` text that builds them. Pure.
 *
 * Nodes hang on one bridge; every pod has a veth into its node, which forwards. Addresses look as in a small cluster.
 * In IPv6 the decimal digits are used as they are: `::11` is the peer of `.11`.
 */

export type Family = 'ipv4' | 'ipv6' | 'dual';

export interface NodeSpec {
  readonly name: string;
  /** Pod names, unique in the lab. */
  readonly pods: readonly string[];
}

export interface PlannedPod {
  readonly name: string;
  readonly node: string;
  readonly netns: string;
  /** IPv4 first, when there is one. */
  readonly ips: readonly string[];
  /** The node's end of the pod's veth, from the node's side and as the pod's gateway. */
  readonly nodeInterface: string;
  readonly gateways: readonly string[];
}

export interface PlannedNode {
  readonly name: string;
  readonly netns: string;
  readonly ips: readonly string[];
  /** The bridge port that leads to this node, in the namespace of the wire. */
  readonly wirePort: string;
  readonly podCidrs: readonly string[];
  readonly pods: readonly PlannedPod[];
}

export interface Plan {
  readonly wireNetns: string;
  readonly nodes: readonly PlannedNode[];
}

/** Bridge in the namespace of the wire. */
const BRIDGE = 'br0';
const MAX_NODES = 200;
const MAX_PODS_PER_NODE = 200;

/** Throws a `RangeError` when the addresses would run out or two pods share a name. */
export function planLab(prefix: string, specs: readonly NodeSpec[], family: Family): Plan {
  const names = specs.flatMap((spec) => [spec.name, ...spec.pods]);
  if (new Set(names).size !== names.length) throw new RangeError('two nodes or pods of a lab share a name');
  if (specs.length > MAX_NODES || specs.some((spec) => spec.pods.length > MAX_PODS_PER_NODE)) {
    throw new RangeError(`a lab has at most ${MAX_NODES} nodes of ${MAX_PODS_PER_NODE} pods`);
  }
  const nodes = specs.map((spec, index) => planNode(prefix, spec, index + 1, family));
  return { wireNetns: `${prefix}wire`, nodes };
}

function planNode(prefix: string, spec: NodeSpec, number: number, family: Family): PlannedNode {
  return {
    name: spec.name,
    netns: `${prefix}${spec.name}`,
    ips: only(family, `172.18.0.${number + 1}`, `fd18::${number + 1}`),
    wirePort: `node${number}`,
    podCidrs: only(family, `10.244.${number}.0/24`, `fd24:0:0:${number}::/64`),
    pods: spec.pods.map((pod, index) => ({
      name: pod,
      node: spec.name,
      netns: `${prefix}${pod}`,
      ips: only(family, `10.244.${number}.${index + 11}`, `fd24:0:0:${number}::${index + 11}`),
      nodeInterface: `pod${index + 1}`,
      gateways: only(family, `10.244.${number}.1`, `fd24:0:0:${number}::1`),
    })),
  };
}

function only(family: Family, ipv4: string, ipv6: string): readonly string[] {
  if (family === 'dual') return [ipv4, ipv6];
  return [family === 'ipv4' ? ipv4 : ipv6];
}

export function allNetns(plan: Plan): readonly string[] {
  return [plan.wireNetns, ...plan.nodes.flatMap((node) => [node.netns, ...node.pods.map((pod) => pod.netns)])];
}

/** Runs in the namespace of the wire: the bridge and a cable to every node. */
export function wireCommands(plan: Plan): readonly string[] {
  const cables = plan.nodes.flatMap(({ wirePort, netns }) => [
    `link add ${wirePort} type veth peer name eth0 netns ${netns}`,
    `link set ${wirePort} master ${BRIDGE}`,
    `link set ${wirePort} up`,
  ]);
  return ['link set lo up', `link add ${BRIDGE} type bridge`, `link set ${BRIDGE} up`, ...cables];
}

/** Runs in the namespace of `node`, after the wire: its address, its pods' cables, and the ways to other nodes' pods. */
export function nodeCommands(plan: Plan, node: PlannedNode): readonly string[] {
  const others = plan.nodes.filter((other) => other !== node);
  return [
    'link set lo up',
    ...node.ips.map((ip) => `addr add ${ip}/${isV6(ip) ? '64' : '24'} dev eth0${noDad(ip)}`),
    'link set eth0 up',
    ...node.pods.flatMap(podCable),
    ...others.flatMap((other) => other.podCidrs.map((cidr, i) => `route add ${cidr} via ${other.ips[i] ?? ''}`)),
  ];
}

function podCable(pod: PlannedPod): readonly string[] {
  const dev = pod.nodeInterface;
  return [
    `link add ${dev} type veth peer name eth0 netns ${pod.netns}`,
    ...pod.gateways.map((ip) => `addr add ${ip}/${bits(ip)} dev ${dev}${noDad(ip)}`),
    `link set ${dev} up`,
    ...pod.ips.map((ip) => `route add ${ip}/${bits(ip)} dev ${dev}`),
  ];
}

/** Runs in the namespace of `pod`, after its node. */
export function podCommands(pod: PlannedPod): readonly string[] {
  return [
    'link set lo up',
    ...pod.ips.map((ip) => `addr add ${ip}/${bits(ip)} dev eth0${noDad(ip)}`),
    'link set eth0 up',
    ...pod.gateways.flatMap((gateway) => [
      `route add ${gateway}/${bits(gateway)} dev eth0`,
      `route add ${isV6(gateway) ? '::/0' : '0.0.0.0/0'} via ${gateway} dev eth0`,
    ]),
  ];
}

function isV6(ip: string): boolean {
  return ip.includes(':');
}

function bits(ip: string): number {
  return isV6(ip) ? 128 : 32;
}

/** Duplicate address detection takes a second, and nobody else is on these wires. */
function noDad(ip: string): string {
  return isV6(ip) ? ' nodad' : '';
}
