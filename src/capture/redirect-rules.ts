/**
 * The nftables rules of a captured pod as text: names, marks, order and priorities are those of the reference, so that
 * tools and people who know them find what they expect. Pure.
 */
import { MeshError } from '../base/errors.ts';
import { PORTS } from '../model/ports.ts';

export interface RedirectOptions {
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** Inbound plaintext is not captured; 15008 and outbound capture stay. */
  readonly isIngressMode: boolean;
  /** Interfaces of guests behind the pod; TCP that enters there is treated as outbound. From an annotation: hostile. */
  readonly rerouteInterfaces: readonly string[];
  readonly dnsCapture: boolean;
  /** What is the agent's own, where it lives in the namespace of the pod. The mark is on what it carries, and on nothing else. */
  readonly exempt?: Exemption;
}

export interface Exemption {
  /** What processes of this group send is let pass. */
  readonly gid: number;
  /** What is sent to these ports is not for the application. */
  readonly ports: readonly number[];
}

const TABLES = ['istio-ambient-nat', 'istio-ambient-mangle', 'istio-ambient-raw'] as const;

export const MARK_MASK = '0xfff';
/** On every packet the agent sends. */
export const AGENT_MARK = '0x539';
/** On connections from the agent to the application whose source address is a remote client's, and on their replies. */
export const RETURN_MARK = '0x111';

interface Family {
  readonly keyword: 'ip' | 'ip6';
  readonly loopback: string;
  /** Kubelet probes come from here after SNAT on the host. */
  readonly probe: string;
}

const IPV4: Family = { keyword: 'ip', loopback: '127.0.0.1/32', probe: '169.254.7.127' };
const IPV6: Family = { keyword: 'ip6', loopback: '::1/128', probe: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff' };

/** Never captured, in either direction. */
export const PROBE_ADDRESSES: ReadonlySet<string> = new Set([IPV4.probe, IPV6.probe]);

/** Linux allows more (`eth*`, quotes); what is allowed here means the same in nft, in a shell and in a log line. */
const INTERFACE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/;
const MAX_INTERFACES = 64;

const NOT_AGENT = `meta mark and ${MARK_MASK} != ${AGENT_MARK}`;
const IS_AGENT = `meta mark and ${MARK_MASK} == ${AGENT_MARK}`;

/** One nft transaction: afterwards the pod has exactly these tables, whatever they held before. */
export function redirectScript(options: RedirectOptions): string {
  requireInterfaceNames(options.rerouteInterfaces);
  return `${deletionScript()}${tables(options).join('')}`;
}

/** Redirects nothing, but has the kernel follow connections from now on: what begins untracked is taken for new when rules come. */
export function trackingScript(): string {
  return mangle();
}

/** One nft transaction that leaves none of the tables, also when there were none. */
export function deletionScript(): string {
  // `add` first: deleting what does not exist would fail the whole transaction.
  return TABLES.map((name) => `add table inet ${name}\ndelete table inet ${name}\n`).join('');
}

/**
 * Nothing is redirected any more, yet the NAT hooks stay: connections redirected before keep their translation, without
 * which neither end would learn that they are being closed.
 */
export function releaseScript(): string {
  const chains = ['istio-prerouting', 'istio-output'].map((name) => `chain inet istio-ambient-nat ${name}\n`);
  return ['add table inet istio-ambient-nat\n', ...chains.flatMap((name) => [`add ${name}`, `flush ${name}`])].join('');
}

/** Our tables out of what `nft -s -t list ruleset inet` printed, in the order of `TABLES`; other people's are left out. */
export function ourTables(listing: string): string {
  const blocks = listing.split(/^(?=table )/m);
  return TABLES.map((name) => blocks.find((block) => block.startsWith(`table inet ${name} {`)) ?? '').join('');
}

function tables(options: RedirectOptions): string[] {
  const families = [...(options.ipv4 ? [IPV4] : []), ...(options.ipv6 ? [IPV6] : [])];
  const nat = table('nat', 'type nat', -100, natPrerouting(options, families), natOutput(options, families));
  return options.dnsCapture
    ? [nat, mangle(), table('raw', 'type filter', -300, rawPrerouting(), rawOutput())]
    : [nat, mangle()];
}

function mangle(): string {
  return table('mangle', 'type filter', -150, manglePrerouting(), mangleOutput());
}

function natPrerouting(options: RedirectOptions, families: readonly Family[]): string[] {
  const rerouted = options.rerouteInterfaces.flatMap((name) => [
    `iifname "${name}" meta l4proto tcp counter redirect to :${PORTS.outbound}`,
    `iifname "${name}" meta l4proto tcp counter return`,
  ]);
  if (options.isIngressMode) return rerouted;
  return [
    ...rerouted,
    ...(options.exempt?.ports ?? []).map((port) => `tcp dport ${port} counter accept`),
    ...families.map((f) => `meta l4proto tcp ${f.keyword} saddr ${f.probe} counter accept`),
    ...families.map(
      (f) =>
        `${f.keyword} daddr != ${f.loopback} tcp dport != ${PORTS.hbone} ${NOT_AGENT} counter redirect to :${PORTS.inboundPlaintext}`,
    ),
  ];
}

function natOutput(options: RedirectOptions, families: readonly Family[]): string[] {
  const dns = [
    `oifname != "lo" ${NOT_AGENT} udp dport 53 counter redirect to :${PORTS.dns}`,
    ...families.map(
      (f) => `${f.keyword} daddr != ${f.loopback} tcp dport 53 ${NOT_AGENT} counter redirect to :${PORTS.dns}`,
    ),
  ];
  return [
    ...(options.exempt === undefined ? [] : [`meta skgid ${options.exempt.gid} counter accept`]),
    ...families.map((f) => `meta l4proto tcp ${f.keyword} daddr ${f.probe} counter accept`),
    ...(options.dnsCapture ? dns : []),
    `meta l4proto tcp meta mark and ${MARK_MASK} == ${RETURN_MARK} counter accept`,
    ...families.map((f) => `oifname "lo" ${f.keyword} daddr != ${f.loopback} counter accept`),
    ...families.map(
      (f) => `meta l4proto tcp ${f.keyword} daddr != ${f.loopback} ${NOT_AGENT} counter redirect to :${PORTS.outbound}`,
    ),
  ];
}

/** Connections that the agent opens, not those it accepts: only they can have a borrowed address. */
function manglePrerouting(): string[] {
  return [`${IS_AGENT} ct direction original counter ct mark set ct mark and 0xfffff000 or ${RETURN_MARK}`];
}

/** Replies only: the kernel looks for the route again of every packet whose mark is changed. */
function mangleOutput(): string[] {
  return [`ct direction reply ct mark and ${MARK_MASK} == ${RETURN_MARK} counter meta mark set ct mark`];
}

function rawPrerouting(): string[] {
  return [`udp sport 53 ${NOT_AGENT} counter ct zone set 1`];
}

function rawOutput(): string[] {
  return [`udp dport 53 ${IS_AGENT} counter ct zone set 1`];
}

type Kind = 'nat' | 'mangle' | 'raw';

function table(kind: Kind, type: string, priority: number, prerouting: string[], output: string[]): string {
  // A changed mark must be routed anew, and only a `route` chain does that.
  const outputType = kind === 'mangle' ? 'type route' : type;
  return [
    `table inet istio-ambient-${kind} {`,
    chain('istio-prerouting', prerouting),
    chain('istio-output', output),
    chain('prerouting', [`${type} hook prerouting priority ${priority}; policy accept;`, 'jump istio-prerouting']),
    chain('output', [`${outputType} hook output priority ${priority}; policy accept;`, 'jump istio-output']),
    '}\n',
  ].join('\n');
}

function chain(name: string, lines: readonly string[]): string {
  return [`\tchain ${name} {`, ...lines.map((line) => `\t\t${line}`), '\t}'].join('\n');
}

function requireInterfaceNames(names: readonly string[]): void {
  if (names.length > MAX_INTERFACES) {
    throw new MeshError('CV-REDIRECT', `more than ${MAX_INTERFACES} interfaces to reroute`, { count: names.length });
  }
  const bad = names.find((name) => !isInterfaceName(name));
  if (bad === undefined) return;
  throw new MeshError('CV-REDIRECT', 'not the name of a network interface', { name: JSON.stringify(bad).slice(0, 80) });
}

export function isInterfaceName(name: string): boolean {
  return INTERFACE_NAME.test(name);
}
