/** The verdict on a connection that reached a captured pod: target, policy, source address, headers and labels. */
import { type HostPort, ipFamily } from '../base/ip.ts';
import { formatBaggage, parseBaggage } from '../wire/baggage.ts';
import { parseForwardedHost } from '../wire/forwarded.ts';
import { type AuthzDecision, authorize, policyRefusal } from './authz.ts';
import type { DataPathSettings } from './data-path-settings.ts';
import { type InboundTarget, inboundTarget, selfCall } from './inbound-target.ts';
import {
  baggageLabels,
  guessService,
  identityLabels,
  serviceLabels,
  workloadBaggage,
  workloadLabels,
} from './labels.ts';
import type { MeshIndex } from './mesh-index.ts';
import type { PolicyConnection } from './policy-compile.ts';
import type { ConnectionLabels, InboundQuestion, InboundVerdict, PeerLabels, Refusal } from './verdict.ts';
import type { Workload } from './workload.ts';

/** What later policy changes are judged by: everything as it was when the connection came. */
export interface TrackedConnection extends PolicyConnection {
  /** The destination as known at connect time, in case it leaves the mesh; that alone does not close the connection. */
  readonly workload: Workload;
}

export interface InboundJudgement {
  readonly verdict: InboundVerdict;
  /** Absent when refused before policies were asked: there is nothing to track. */
  readonly tracked?: TrackedConnection;
  /** For the log, absent as `tracked` is: how the policies decided. */
  readonly decision?: AuthzDecision;
}

/**
 * Judges without waiting, so a caller that stores `tracked` in the same turn cannot miss a policy push (§4.5 step 8).
 * `local` is the captured pod, found by its netns, never by an address.
 */
export function inboundVerdict(
  index: MeshIndex,
  local: Workload,
  question: InboundQuestion,
  settings: DataPathSettings,
): InboundJudgement {
  const target = targetOf(index, local, question, settings);
  if (target.kind === 'refuse') return { verdict: target };
  const peerIdentity = question.hbone?.peerIdentity;
  const tracked: TrackedConnection = {
    source: question.peer,
    ...(peerIdentity !== undefined && { sourceIdentity: peerIdentity }),
    destination: target.policyDestination,
    workload: local,
  };
  const decision = authorize(index.policiesFor(local), tracked);
  const refusal = policyRefusal(decision);
  const labels = labelsOf(index, { local, question, target }, settings);
  const verdict: InboundVerdict =
    refusal === undefined ? accept({ local, question, target }, labels, settings) : { kind: 'refuse', refusal, labels };
  return { verdict, tracked, decision };
}

/** Of a connection that was allowed before. */
export const POLICY_CHANGED: Refusal = { code: 'CV-POLICY-CHANGED', text: 'connection closed due to policy change' };

/**
 * Why a connection that was allowed is no longer; `undefined` while it still is. Judged for the workload as the mesh knows
 * it now, because a policy attached by selector arrives as a new record of the workload.
 */
export function reauthorize(index: MeshIndex, tracked: TrackedConnection): Refusal | undefined {
  const workload = index.workloads.byUid(tracked.workload.uid) ?? tracked.workload;
  const decision = authorize(index.policiesFor(workload), tracked);
  return decision.isAllowed ? undefined : POLICY_CHANGED;
}

type AcceptedTarget = Exclude<InboundTarget, { kind: 'refuse' }>;

interface Judged {
  readonly local: Workload;
  readonly question: InboundQuestion;
  readonly target: AcceptedTarget;
}

function targetOf(
  index: MeshIndex,
  local: Workload,
  question: InboundQuestion,
  settings: DataPathSettings,
): InboundTarget {
  const connectionDst = question.local;
  if (question.hbone !== undefined) {
    return inboundTarget(index, { local, connectionDst, authority: question.hbone.authority }, settings);
  }
  if (settings.illegalPorts.has(connectionDst.port)) return selfCall();
  return { kind: 'target', policyDestination: connectionDst, address: connectionDst };
}

function accept(judged: Judged, labels: ConnectionLabels, settings: DataPathSettings): InboundVerdict {
  const { local, question, target } = judged;
  const sourceIp = sourceToBind(judged, settings);
  const responseBaggage =
    question.hbone !== undefined && settings.isResponseBaggageEnabled
      ? formatBaggage(workloadBaggage(local))
      : undefined;
  return {
    kind: 'accept',
    address: target.address,
    ...(sourceIp !== undefined && { sourceIp }),
    ...(target.tunnelTarget && { proxyHeader: proxyHeader(question, target.tunnelTarget) }),
    ...(responseBaggage !== undefined && { responseBaggage }),
    labels,
  };
}

/** The TCP peer, unless the kernel must choose: a pod that calls itself, or an app tunnel on loopback. */
function sourceToBind({ question, target }: Judged, settings: DataPathSettings): string | undefined {
  const { ip } = question.peer;
  const isLocalhostTunnel = target.tunnelTarget !== undefined && settings.isLocalhostAppTunnelEnabled;
  const isSelf = ip === target.address.ip;
  const isOtherFamily = ipFamily(ip) !== ipFamily(target.address.ip);
  return !settings.isOrigSrcEnabled || isLocalhostTunnel || isSelf || isOtherFamily ? undefined : ip;
}

function proxyHeader(
  { peer, hbone }: InboundQuestion,
  destination: HostPort,
): { source: HostPort; destination: HostPort; identity?: string } {
  return { source: peer, destination, ...(hbone?.peerIdentity !== undefined && { identity: hbone.peerIdentity }) };
}

function labelsOf(index: MeshIndex, judged: Judged, settings: DataPathSettings): ConnectionLabels {
  const { local, question, target } = judged;
  const source = sourceLabels(index, judged, settings);
  const forwardedHost =
    question.hbone?.forwarded === undefined ? undefined : parseForwardedHost(question.hbone.forwarded);
  const service = target.service ?? guessService(index, local, { port: target.policyDestination.port, forwardedHost });
  return {
    reporter: 'destination',
    ...(source && { source }),
    destination: workloadLabels(local),
    ...(service && { destinationService: serviceLabels(service) }),
    securityPolicy: securityOf(question),
  };
}

function securityOf({ hbone, isSameNode }: InboundQuestion): ConnectionLabels['securityPolicy'] {
  if (hbone === undefined) return 'unknown';
  return isSameNode === true ? 'same_node' : 'mutual_tls';
}

/** By address, unless the request came through a gateway of another network; there, and where that fails, by baggage. */
function sourceLabels(index: MeshIndex, judged: Judged, settings: DataPathSettings): PeerLabels | undefined {
  const { local, question } = judged;
  const { hbone, peer } = question;
  const identity = hbone?.peerIdentity ?? '';
  const isForeign = isFromOtherNetwork(hbone?.forwardedNetwork, settings.network);
  const workload = isForeign ? undefined : index.workloads.byAddress(local.network, peer.ip);
  if (workload !== undefined) return workloadLabels(workload, identity);
  const baggage = settings.isResponseBaggageEnabled && hbone?.baggage ? parseBaggage(hbone.baggage) : undefined;
  if (baggage !== undefined) return baggageLabels(baggage, identity);
  return identity === '' ? undefined : identityLabels(identity);
}

function isFromOtherNetwork(forwardedNetwork: string | undefined, ownNetwork: string): boolean {
  return forwardedNetwork !== undefined && forwardedNetwork.toLowerCase() !== ownNetwork.toLowerCase();
}
