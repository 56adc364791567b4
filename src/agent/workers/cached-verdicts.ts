/** The worker's end of the verdict port: answers from what it was told before where it may, asks the main thread otherwise. */
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { Generation } from '../../model/generation.ts';
import type {
  DnsQuestion,
  DnsVerdict,
  InboundQuestion,
  InboundVerdict,
  OutboundQuestion,
  OutboundVerdict,
  TlsMaterial,
  VerdictPort,
  VerdictPush,
} from '../../model/verdict.ts';
import { DNS_RULES, InboundCache, OUTBOUND_RULES } from '../../model/verdict-cache.ts';
import { currentAnswer } from './current-answer.ts';
import { DrawnVerdicts } from './drawn-verdicts.ts';
import type { PortLink } from './port-link.ts';
import type { Dated, MainCalls, WorkerCalls } from './protocol.ts';
import type { TicketLedger } from './ticket-ledger.ts';

/** Identities and pods of one node; more than a node can have. */
const MAX_REMEMBERED = 1_024;

export interface CachedVerdictsDeps {
  readonly link: PortLink<WorkerCalls, MainCalls>;
  readonly generation: Generation;
  readonly certificateGeneration: Generation;
  readonly ledger: TicketLedger;
  readonly clock: Clock;
  readonly random: Random;
}

export class CachedVerdicts implements VerdictPort {
  readonly #deps: CachedVerdictsDeps;
  readonly #outbound: DrawnVerdicts<OutboundQuestion, OutboundVerdict>;
  readonly #resolutions: DrawnVerdicts<DnsQuestion, DnsVerdict>;
  readonly #inbound: InboundCache;
  readonly #identities = new BoundedMap<string, Dated<string>>(MAX_REMEMBERED);
  readonly #materials = new BoundedMap<string, Dated<TlsMaterial>>(MAX_REMEMBERED);
  readonly #listeners = new Set<(push: VerdictPush) => void>();

  constructor(deps: CachedVerdictsDeps) {
    const { link, ledger } = deps;
    this.#deps = deps;
    this.#outbound = new DrawnVerdicts(OUTBOUND_RULES, (ask) => link.call('outbound', ask), deps);
    this.#resolutions = new DrawnVerdicts(DNS_RULES, (ask) => link.call('resolve', ask), deps);
    this.#inbound = new InboundCache(deps, (ticket) => ledger.leave(ticket));
  }

  /** Entries by cache. */
  get sizes() {
    return {
      outbound_verdicts: this.#outbound.size,
      dns_verdicts: this.#resolutions.size,
      inbound_verdicts: this.#inbound.size,
      identities: this.#identities.size,
      certificates: this.#materials.size,
    };
  }

  outbound(question: OutboundQuestion): Promise<OutboundVerdict> {
    return this.#outbound.get(question);
  }

  resolve(question: DnsQuestion): Promise<DnsVerdict> {
    return this.#resolutions.get(question);
  }

  async inbound(question: InboundQuestion): Promise<InboundVerdict> {
    const { generation, link, ledger } = this.#deps;
    const known = this.#inbound.get(question);
    if (known !== undefined) {
      ledger.use(question.connectionId, known.ticket, question.peer.port);
      return known.verdict;
    }
    const reply = await currentAnswer(
      generation,
      () => link.call('inbound', question),
      ({ ticket }) => {
        if (ticket !== undefined) ledger.leave(ticket);
      },
    );
    const { verdict, ticket } = reply;
    if (ticket !== undefined) this.#inbound.add(question, { verdict, ticket }, reply.generation);
    return verdict;
  }

  release(connectionId: string): void {
    this.#deps.ledger.release(connectionId);
  }

  async identityOf(podUid: string): Promise<string> {
    const { generation, link } = this.#deps;
    const known = this.#identities.get(podUid);
    if (known?.generation === generation.current) return known.value;
    const answer = await currentAnswer(generation, () => link.call('identityOf', podUid));
    this.#identities.set(podUid, answer);
    return answer.value;
  }

  async certificate(identity: string): Promise<TlsMaterial> {
    const { certificateGeneration, link, clock } = this.#deps;
    const known = this.#materials.get(identity);
    const isCurrent = known?.generation === certificateGeneration.current;
    if (known !== undefined && isCurrent && known.value.notAfterMs > clock.wallMs()) return known.value;
    const answer = await currentAnswer(certificateGeneration, () => link.call('certificate', identity));
    this.#materials.set(identity, answer);
    return answer.value;
  }

  subscribe(listener: (push: VerdictPush) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** From the main thread. */
  receive(push: VerdictPush): void {
    // The key must not stay in memory.
    if (push.kind === 'certificate') this.#materials.delete(push.identity);
    for (const listener of this.#listeners) listener(push);
  }
}
