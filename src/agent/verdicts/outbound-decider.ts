/** Verdicts on outbound connections: asks DNS and an on-demand control plane for what the mesh state lacks, then decides. */
import { messageOf } from '../../base/errors.ts';
import { type Random, WatchedRandom } from '../../base/random.ts';
import type { DataPathSettings } from '../../model/data-path-settings.ts';
import type { Generation } from '../../model/generation.ts';
import { workloadLabels } from '../../model/labels.ts';
import { addressKey } from '../../model/mesh-demand.ts';
import type { MeshIndex } from '../../model/mesh-index.ts';
import { type OutboundDecision, outboundDecision, outboundSelfCall } from '../../model/outbound-verdict.ts';
import type { OutboundQuestion, OutboundVerdict, PeerLabels, Refusal } from '../../model/verdict.ts';
import type { Hand } from '../../model/verdict-cache.ts';
import type { Workload } from '../../model/workload.ts';
import type { HostNames } from './host-names.ts';
import type { LocalPods } from './local-pods.ts';
import type { MeshQuestions } from './mesh-questions.ts';

/** Decisions per connection: an address, a waypoint or gateway, a host name, and changes of the mesh while those are found. */
const MAX_DECISIONS = 8;
/** Of a host name, on demand: each may be a question, and others are not dialled. */
const MAX_ADDRESSES = 32;

/** How one verdict comes about. */
interface Course {
  readonly random: WatchedRandom;
  /** Of the mesh it was decided by. */
  generation: number;
  /** False when it also rests on what others said just now: DNS, or an on-demand control plane. */
  isLasting: boolean;
}

export interface OutboundDeciderDeps {
  readonly index: MeshIndex;
  /** Of `index` and `pods`. */
  readonly generation: Generation;
  readonly pods: LocalPods;
  readonly random: Random;
  readonly names: HostNames;
  /** Connections between two of `pods` may skip the tunnel. */
  readonly isShortCutAccepted: boolean;
  /** Told of each look-up for a client, remembered answers included. */
  readonly onLookup?: ((client: PeerLabels, hostname: string) => void) | undefined;
}

export class OutboundDecider {
  readonly #settings: Pick<DataPathSettings, 'illegalPorts' | 'network'>;
  readonly #deps: OutboundDeciderDeps;
  readonly #capturedPod: ((record: Workload) => string | undefined) | undefined;
  /** Absent: the mesh state is complete, and what it does not know does not exist. */
  #questions: MeshQuestions | undefined;

  constructor(settings: Pick<DataPathSettings, 'illegalPorts' | 'network'>, deps: OutboundDeciderDeps) {
    this.#settings = settings;
    this.#deps = deps;
    this.#capturedPod = deps.isShortCutAccepted ? (record) => deps.pods.uidOf(record) : undefined;
  }

  /** On-demand mode: the mesh state is what was asked for. */
  ask(questions: MeshQuestions): void {
    this.#questions = questions;
  }

  /** Up to `count` verdicts, as if the question had been asked so often. */
  async draw(question: OutboundQuestion, count: number): Promise<Hand<OutboundVerdict>> {
    const { random, generation } = this.#deps;
    const course: Course = { random: new WatchedRandom(random), generation: generation.current, isLasting: true };
    const verdicts: [OutboundVerdict, ...OutboundVerdict[]] = [await this.#decide(question, course)];
    const made = course.generation;
    while (course.isLasting && course.random.wasAsked && verdicts.length < count) {
      const verdict = await this.#decide(question, course);
      // The mesh changed between two of them: those before it count.
      if (course.generation !== made) break;
      verdicts.push(verdict);
    }
    const { isLasting, random: watched } = course;
    return { verdicts, isChoice: watched.wasAsked, isRepeatable: isLasting, generation: made };
  }

  async #decide(question: OutboundQuestion, course: Course): Promise<OutboundVerdict> {
    const refusal = outboundSelfCall(question.target, this.#settings);
    if (refusal !== undefined) return { kind: 'refuse', refusal };
    const { pods } = this.#deps;
    if (pods.workload(question.podUid) === undefined) await pods.waitFor(question.podUid);
    const asked = new Set<string>();
    for (let decisions = 0; decisions < MAX_DECISIONS; decisions++) {
      const verdict = await this.#attempt(question, asked, course);
      if (verdict !== undefined) return verdict;
    }
    const text = 'the mesh changed faster than the destination could be found';
    return { kind: 'refuse', refusal: { code: 'CV-NO-ADDRESS', text } };
  }

  /** `undefined`: something was learnt meanwhile, decide again. */
  async #attempt(question: OutboundQuestion, asked: Set<string>, course: Course): Promise<OutboundVerdict | undefined> {
    const { index, pods, generation } = this.#deps;
    course.generation = generation.current;
    const source = pods.workload(question.podUid);
    if (source === undefined) return { kind: 'refuse', refusal: pods.unknown(question.podUid) };
    const decision = outboundDecision(index, source, question, {
      settings: this.#settings,
      random: course.random,
      capturedPod: this.#capturedPod,
    });
    const missing = this.#missing(source, question, decision);
    course.isLasting &&= missing === undefined && decision.kind === 'verdict';
    if (missing !== undefined && !asked.has(missing)) {
      asked.add(missing);
      const refusal = await this.#questions?.ask(question.podUid, missing);
      return refusal && { kind: 'refuse', refusal };
    }
    return decision.kind === 'verdict' ? decision.verdict : await this.#resolve(question.podUid, source, decision);
  }

  /** Key of what may exist and would change the verdict; nothing when the mesh state is complete. */
  #missing(source: Workload, { target }: OutboundQuestion, decision: OutboundDecision): string | undefined {
    if (this.#questions === undefined) return undefined;
    const address = addressKey(this.#deps.index, source.network, target.ip);
    return address ?? (decision.kind === 'verdict' ? decision.missing : undefined);
  }

  /** On demand a name may lead to a pod or a service that nobody has asked about yet. */
  async #askWho(podUid: string, { network }: Workload, ips: readonly string[]): Promise<Refusal | undefined> {
    const questions = this.#questions;
    if (questions === undefined) return undefined;
    const keys = ips.flatMap((ip) => addressKey(this.#deps.index, network, ip) ?? []);
    const refusals = await Promise.all(keys.map((key) => questions.ask(podUid, key)));
    return refusals.find((refusal) => refusal !== undefined);
  }

  async #resolve(
    podUid: string,
    source: Workload,
    { upstream, withAddresses }: Extract<OutboundDecision, { kind: 'resolve' }>,
  ): Promise<OutboundVerdict | undefined> {
    const { index, names, onLookup } = this.#deps;
    onLookup?.(workloadLabels(source), upstream.hostname);
    try {
      const all = await names.addressesOf(upstream.hostname);
      const ips = this.#questions === undefined ? all : all.slice(0, MAX_ADDRESSES);
      const refusal = await this.#askWho(podUid, source, ips);
      if (refusal !== undefined) return { kind: 'refuse', refusal };
      // Told anew meanwhile, perhaps with HBONE: what was decided for the former record does not count.
      return index.workloads.byUid(upstream.uid) === upstream ? withAddresses(ips) : undefined;
    } catch (error) {
      const text = `no ip addresses were resolved for workload: ${upstream.uid}: ${messageOf(error)}`;
      return { kind: 'refuse', refusal: { code: 'CV-NO-ADDRESS', text } };
    }
  }
}
