/** The verdict on a connection a captured pod opened: next hop, headers and labels, ready for the data plane. */
import { type HostPort, isLoopback } from '../base/ip.ts';
import type { Random } from '../base/random.ts';
import { formatBaggage } from '../wire/baggage.ts';
import { formatForwarded } from '../wire/forwarded.ts';
import { parseHboneAuthority } from '../wire/hbone.ts';
import type { DataPathSettings } from './data-path-settings.ts';
import { selfCall } from './inbound-target.ts';
import { serviceLabels, workloadBaggage, workloadLabels } from './labels.ts';
import type { MeshIndex } from './mesh-index.ts';
import { nextHop, type SettledHop } from './next-hop.ts';
import { workloadIdentity } from './spiffe.ts';
import type {
  ConnectionLabels,
  OutboundQuestion,
  OutboundVerdict,
  Refusal,
  SameNodeRoute,
  TunnelRoute,
} from './verdict.ts';
import type { Workload } from './workload.ts';

/** Checked before anything is looked up: an application dialled the agent's own port on loopback. */
export function outboundSelfCall(
  target: HostPort,
  { illegalPorts }: Pick<DataPathSettings, 'illegalPorts'>,
): Refusal | undefined {
  return isLoopback(target.ip) && illegalPorts.has(target.port) ? selfCall().refusal : undefined;
}

/** A verdict, or what has to be found out first. */
export type OutboundDecision =
  | {
      readonly kind: 'verdict';
      readonly verdict: OutboundVerdict;
      /** Key of something unknown that made it a refusal: worth asking an on-demand control plane for. */
      readonly missing?: string | undefined;
    }
  /** `upstream` is known by host name alone: its addresses are needed. */
  | {
      readonly kind: 'resolve';
      readonly upstream: Workload;
      readonly withAddresses: (ips: readonly string[]) => OutboundVerdict;
    };

export interface DecisionInputs {
  readonly settings: Pick<DataPathSettings, 'illegalPorts' | 'network'>;
  readonly random: Random;
  /** UID of the pod of this agent that a record describes. Absent: no connection takes the short cut. */
  readonly capturedPod?: ((workload: Workload) => string | undefined) | undefined;
}

export function outboundDecision(
  index: MeshIndex,
  source: Workload,
  question: OutboundQuestion,
  { settings, random, capturedPod }: DecisionInputs,
): OutboundDecision {
  const { client, target } = question;
  const refusal = outboundSelfCall(target, settings);
  if (refusal !== undefined) return { kind: 'verdict', verdict: { kind: 'refuse', refusal } };
  const verdictOn = (settled: SettledHop): OutboundVerdict =>
    verdictOf(settled, { source, client, settings, capturedPod });
  const hop = nextHop(index, { source, clientIp: client.ip, target }, random);
  switch (hop.kind) {
    case 'resolve':
      return { ...hop, withAddresses: (ips) => verdictOn(hop.withAddresses(ips)) };
    case 'refuse':
      return { kind: 'verdict', verdict: verdictOn(hop), missing: hop.missing };
    case 'plaintext':
    case 'hbone':
    case 'double-hbone':
      return { kind: 'verdict', verdict: verdictOn(hop) };
  }
}

interface Asker extends Pick<DecisionInputs, 'settings' | 'capturedPod'> {
  readonly source: Workload;
  readonly client: HostPort;
}

function verdictOf(hop: SettledHop, asker: Asker): OutboundVerdict {
  const { source, client, settings } = asker;
  switch (hop.kind) {
    case 'refuse':
      return { kind: 'refuse', refusal: hop.refusal };
    case 'plaintext': {
      // A host name may lead to loopback as well.
      const refusal = outboundSelfCall(hop.address, settings);
      if (refusal !== undefined) return { kind: 'refuse', refusal };
      return { kind: 'plaintext', address: hop.address, labels: labelsOf(source, hop) };
    }
    case 'hbone': {
      const sameNode = sameNodeRoute(hop, asker);
      return {
        kind: 'hbone',
        ...routeOf(source, client, hop),
        labels: labelsOf(source, hop),
        ...(sameNode && { sameNode }),
      };
    }
    case 'double-hbone':
      return {
        kind: 'double-hbone',
        ...routeOf(source, client, hop),
        innerExpectedIdentities: hop.innerExpectedIdentities,
        forwardedNetwork: settings.network,
        labels: labelsOf(source, hop),
      };
  }
}

/**
 * Only straight to the destination: a waypoint is asked for an address that is not its own. The identity that the pod would
 * prove must be one that is expected. The address that the client calls from is judged by policies and shown to the
 * application, and so must be one that the mesh knows as the pod's.
 */
function sameNodeRoute(
  hop: Extract<SettledHop, { kind: 'hbone' }>,
  { source, client, capturedPod }: Asker,
): SameNodeRoute | undefined {
  const podUid = capturedPod?.(hop.upstream);
  const authority = parseHboneAuthority(hop.authority);
  if (podUid === undefined || authority?.kind !== 'address' || authority.ip !== hop.address.ip) return undefined;
  const isExpected = hop.expectedIdentities.includes(workloadIdentity(hop.upstream));
  if (!isExpected || !source.ips.includes(client.ip)) return undefined;
  return { podUid, address: { ip: authority.ip, port: authority.port } };
}

function routeOf(
  source: Workload,
  client: HostPort,
  hop: Extract<SettledHop, { kind: 'hbone' | 'double-hbone' }>,
): TunnelRoute {
  return {
    address: hop.address,
    authority: hop.authority,
    identity: workloadIdentity(source),
    expectedIdentities: hop.expectedIdentities,
    baggage: formatBaggage(workloadBaggage(source)),
    forwarded: formatForwarded(client, hop.service?.hostname),
  };
}

function labelsOf(source: Workload, hop: Exclude<SettledHop, { kind: 'refuse' }>): ConnectionLabels {
  const isMutual = hop.kind !== 'plaintext';
  return {
    reporter: 'source',
    source: isMutual ? workloadLabels(source) : workloadLabels(source, ''),
    ...(hop.upstream && { destination: workloadLabels(hop.upstream) }),
    ...(hop.service && { destinationService: serviceLabels(hop.service) }),
    securityPolicy: isMutual ? 'mutual_tls' : 'unknown',
  };
}

/** For the owner of the 5 s wait: the pod is captured, but nobody described it. */
export function unknownWorkload(pod: {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}): Refusal {
  return {
    code: 'CV-WORKLOAD-UNKNOWN',
    text: `failed to fetch information about local workload: ${pod.serviceAccount}.${pod.namespace} (${pod.name})`,
  };
}
