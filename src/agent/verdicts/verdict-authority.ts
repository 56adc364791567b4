/**
 * The owner's end of the verdict port: judges connections against the current mesh, remembers inbound ones while they live,
 * and judges them again when the mesh changes.
 */
import type { Clock } from '../../base/clock.ts';
import { MeshError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { AuthzDecision } from '../../model/authz.ts';
import type { DataPathSettings } from '../../model/data-path-settings.ts';
import { type DnsSettings, dnsVerdict } from '../../model/dns-answer.ts';
import { Generation } from '../../model/generation.ts';
import { type InboundJudgement, inboundVerdict, type TrackedConnection } from '../../model/inbound-verdict.ts';
import type { MeshDemand } from '../../model/mesh-demand.ts';
import { MeshIndex, type MeshState } from '../../model/mesh-index.ts';
import type { MeshUpdate } from '../../model/mesh-update.ts';
import { workloadIdentity } from '../../model/spiffe.ts';
import type {
  DnsQuestion,
  DnsVerdict,
  InboundQuestion,
  InboundVerdict,
  OutboundQuestion,
  OutboundVerdict,
  PeerLabels,
  Refusal,
  TlsMaterial,
  VerdictPort,
  VerdictPush,
} from '../../model/verdict.ts';
import { drawHand, type Hand } from '../../model/verdict-cache.ts';
import type { Workload } from '../../model/workload.ts';
import type { HostLookup } from '../../sys/host-lookup.ts';
import { HostNames } from './host-names.ts';
import { IdentityUses, NodeWorkloads, type PrefetchedCertificates } from './identity-uses.ts';
import { LiveConnections } from './live-connections.ts';
import { type EnrolledPod, LocalPods } from './local-pods.ts';
import { MeshQuestions } from './mesh-questions.ts';
import { OutboundDecider } from './outbound-decider.ts';
import { PolicyLog } from './policy-log.ts';

/** How long a certificate is kept that no pod of this node needs: for what has begun already. */
const UNUSED_MS = 60_000;

export interface AuthoritySettings extends DataPathSettings {
  readonly nodeName: string;
  readonly clusterId?: string;
  /** One pod is served: certificates of the others on its node are none of its business. Default: false. */
  readonly isDedicated?: boolean;
  /** `AUTHZ_POLICY_INFO_LOGGING`: decisions of policies at info instead of debug. */
  readonly isPolicyLogAtInfo: boolean;
  readonly dns: DnsSettings;
  /** Connections between two captured pods may skip the tunnel. Default: false. */
  readonly isShortCutAccepted?: boolean;
}

export interface Certificates extends PrefetchedCertificates {
  get(identity: string): Promise<TlsMaterial>;
}

export interface AuthorityDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly certificates: Certificates;
  readonly lookupHost: HostLookup;
  readonly log: Logger;
  /** Told of each look-up of a host name for a client, remembered answers included. */
  readonly onHostLookup?: (client: PeerLabels, hostname: string) => void;
}

/** A judgement, and the generation of the mesh it was made by. */
export interface InboundAnswer extends InboundJudgement {
  readonly generation: number;
  /** False when each connection has something to be logged about it. */
  readonly isRepeatable: boolean;
}

export class VerdictAuthority implements VerdictPort {
  /** Moves with everything that verdicts and the identities of pods are made of. */
  readonly generation = new Generation();
  /** Moves when the material of an identity changes. */
  readonly certificateGeneration = new Generation();
  readonly #settings: AuthoritySettings;
  readonly #deps: AuthorityDeps;
  readonly #index = new MeshIndex();
  readonly #uses: IdentityUses;
  readonly #pods: LocalPods;
  /** Absent in dedicated mode. */
  readonly #nodeWorkloads: NodeWorkloads | undefined;
  readonly #live: LiveConnections;
  readonly #outbound: OutboundDecider;
  readonly #listeners = new Set<(push: VerdictPush) => void>();
  readonly #policyLog: PolicyLog;
  #crls: readonly Uint8Array[] = [];

  constructor(settings: AuthoritySettings, deps: AuthorityDeps) {
    this.#settings = settings;
    this.#deps = deps;
    const { clock, certificates, log } = deps;
    const index = this.#index;
    this.#policyLog = new PolicyLog({ log, isAtInfo: settings.isPolicyLogAtInfo });
    const uses = new IdentityUses(certificates);
    this.#uses = uses;
    this.#nodeWorkloads = settings.isDedicated === true ? undefined : new NodeWorkloads(settings.nodeName, uses);
    this.#pods = new LocalPods({ node: settings.nodeName, clusterId: settings.clusterId, index, clock, uses });
    const revoke = (connectionIds: readonly string[], refusal: Refusal): void =>
      this.#push({ kind: 'revoke', connectionIds, refusal });
    this.#live = new LiveConnections({ index, clock, log, revoke });
    this.#outbound = new OutboundDecider(settings, {
      index,
      generation: this.generation,
      pods: this.#pods,
      random: deps.random,
      names: new HostNames(deps.lookupHost, clock),
      onLookup: deps.onHostLookup,
      isShortCutAccepted: settings.isShortCutAccepted === true,
    });
  }

  /** The current mesh: read by admin views, never changed. */
  get index(): MeshIndex {
    return this.#index;
  }

  get trackedCount(): number {
    return this.#live.size;
  }

  /** Changes the mesh at once, and soon closes the live connections that it no longer allows. */
  apply(update: MeshUpdate): void {
    const touched = this.#pods.touchedBy(update);
    this.#index.apply(update);
    this.generation.advance();
    this.#nodeWorkloads?.apply(update);
    this.#pods.refresh(touched.names);
    const hasPolicies = update.policies.length + update.rejectedPolicies.length + update.removedPolicies.length > 0;
    if (hasPolicies || touched.isPolicyChange) this.#live.rejudge();
  }

  /** As `apply`, for a source that tells everything each time. */
  replace(state: MeshState): void {
    this.apply(this.#index.updateTo(state));
  }

  /** On-demand mode: from now on what is not known is asked for, and refused while nobody says. */
  askFor(demand: MeshDemand): void {
    this.generation.advance();
    const { clock, log } = this.#deps;
    this.#outbound.ask(new MeshQuestions({ demand, clock, log }));
  }

  addPod(pod: EnrolledPod): void {
    this.generation.advance();
    this.#pods.add(pod);
  }

  /** Does nothing when another pod took the UID meanwhile (same UID, new netns). */
  removePod(pod: EnrolledPod): void {
    this.generation.advance();
    this.#pods.remove(pod);
  }

  /** Tells the data plane that the material of an identity was renewed or its roots changed. */
  certificateChanged(identity: string): void {
    this.certificateGeneration.advance();
    this.#push({ kind: 'certificate', identity });
  }

  /** Revocation lists, DER, in place of all before. */
  crlsChanged(crls: readonly Uint8Array[]): void {
    this.#crls = crls;
    this.#push({ kind: 'crls', crls });
  }

  async outbound(question: OutboundQuestion): Promise<OutboundVerdict> {
    return (await this.drawOutbound(question, 1)).verdicts[0];
  }

  /** Up to `count` verdicts, as if the question had been asked so often. */
  drawOutbound(question: OutboundQuestion, count: number): Promise<Hand<OutboundVerdict>> {
    return this.#outbound.draw(question, count);
  }

  async inbound(question: InboundQuestion): Promise<InboundVerdict> {
    return (await this.judgeInbound(question)).verdict;
  }

  /** As `inbound`, with what the connection is remembered by. */
  async judgeInbound(question: InboundQuestion): Promise<InboundAnswer> {
    if (this.#pods.workload(question.podUid) === undefined) await this.#pods.waitFor(question.podUid);
    const generation = this.generation.current;
    const local = this.#pods.workload(question.podUid);
    if (local === undefined) {
      const verdict = { kind: 'refuse', refusal: this.#pods.unknown(question.podUid) } as const;
      return { verdict, generation, isRepeatable: false };
    }
    const judgement = inboundVerdict(this.#index, local, question, this.#settings);
    const { verdict, tracked, decision } = judgement;
    if (decision !== undefined) this.#logDecision(decision, local, question);
    const isAccepted = tracked !== undefined && verdict.kind === 'accept';
    if (isAccepted) this.#live.add(question.connectionId, tracked);
    return { ...judgement, generation, isRepeatable: isAccepted && !this.#policyLog.isHeard };
  }

  /** Remembers a connection that was allowed by an earlier answer, and closes it when the mesh no longer allows it. */
  track(connectionId: string, tracked: TrackedConnection, generation: number): void {
    if (generation === this.generation.current) this.#live.add(connectionId, tracked);
    else this.#live.addFormer(connectionId, tracked);
  }

  async resolve(question: DnsQuestion): Promise<DnsVerdict> {
    return (await this.drawResolution(question, 1)).verdicts[0];
  }

  /** Up to `count` verdicts, as if the question had been asked so often. */
  async drawResolution(question: DnsQuestion, count: number): Promise<Hand<DnsVerdict>> {
    if (this.#pods.workload(question.podUid) === undefined) await this.#pods.waitFor(question.podUid);
    const generation = this.generation.current;
    const source = this.#pods.workload(question.podUid);
    return drawHand<DnsVerdict>({ count, generation, random: this.#deps.random }, (random) =>
      source === undefined
        ? { kind: 'refuse', refusal: this.#pods.unknown(question.podUid) }
        : dnsVerdict(this.#index, source, question, { settings: this.#settings.dns, random }),
    );
  }

  /** `tracked`: what it was remembered by. Another thread may have been asked about the connection since, and has it now. */
  release(connectionId: string, tracked?: TrackedConnection): void {
    this.#live.delete(connectionId, tracked);
  }

  async identityOf(podUid: string): Promise<string> {
    if (this.#pods.workload(podUid) === undefined) await this.#pods.waitFor(podUid);
    const local = this.#pods.workload(podUid);
    if (local !== undefined) return workloadIdentity(local);
    const { code, text } = this.#pods.unknown(podUid);
    throw new MeshError(code, text);
  }

  /** Who was about to connect when its pod left still gets what it asks for; but nobody would ever end the renewal of that. */
  certificate(identity: string): Promise<TlsMaterial> {
    if (!this.#uses.isUsed(identity)) {
      this.#deps.clock.after(UNUSED_MS, () => this.#uses.forgetUnused(identity));
    }
    return this.#deps.certificates.get(identity);
  }

  subscribe(listener: (push: VerdictPush) => void): Disposable {
    this.#listeners.add(listener);
    if (this.#crls.length > 0) listener({ kind: 'crls', crls: this.#crls });
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #push(push: VerdictPush): void {
    for (const listener of [...this.#listeners]) listener(push);
  }

  #logDecision(decision: AuthzDecision, workload: Workload, { peer, local }: InboundQuestion): void {
    this.#policyLog.decided(decision, { source: peer, destination: local });
    this.#policyLog.missing(this.#index.policiesFor(workload).missing);
  }
}
