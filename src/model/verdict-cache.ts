/**
 * Verdicts that a thread may use again without asking the owner of the mesh. One is used only while its generation is the
 * current one, so that none outlives a change of what it was made of; and not for long, as a thread must notice when its
 * owner has fallen silent.
 */
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import { type Random, WatchedRandom } from '../base/random.ts';
import type { Generation } from './generation.ts';
import type {
  DnsQuestion,
  DnsVerdict,
  InboundQuestion,
  InboundVerdict,
  OutboundQuestion,
  OutboundVerdict,
} from './verdict.ts';
import { inboundFor, inboundKey, outboundFor, outboundKey } from './verdict-reuse.ts';

/** Far above the longest time that the main thread may stand still (5 s). */
const MAX_AGE_MS = 30_000;
/** About 2 KiB each. */
const MAX_INBOUND = 4_096;
/** A peer writes what it likes into headers, 64 KiB of it; agents say less than one. A longer question is asked each time. */
const MAX_INBOUND_KEY_CHARS = 4_096;
/** Up to eight verdicts of 1.5 KiB each. */
const MAX_DECKS = 2_048;
/** Verdicts asked for at once: few for a target dialled now and then, more while it stays busy. */
export const FIRST_HAND = 2;
const MAX_HAND = 8;

/** Verdicts on one question, drawn independently of each other. */
export interface Hand<Verdict> {
  /** One only, when chance had no part in it: any other would be the same. */
  readonly verdicts: readonly [Verdict, ...Verdict[]];
  readonly isChoice: boolean;
  /** False when it rests on more than the mesh of its generation. */
  readonly isRepeatable: boolean;
  readonly generation: number;
}

export interface Draw {
  readonly count: number;
  readonly generation: number;
  readonly random: Random;
}

/** `once` makes one verdict, without waiting. */
export function drawHand<Verdict>(
  { count, generation, random }: Draw,
  once: (random: Random) => Verdict,
): Hand<Verdict> {
  const watched = new WatchedRandom(random);
  const verdicts: [Verdict, ...Verdict[]] = [once(watched)];
  while (watched.wasAsked && verdicts.length < count) verdicts.push(once(watched));
  return { verdicts, isChoice: watched.wasAsked, isRepeatable: true, generation };
}

export interface Dealt<Verdict> {
  readonly verdict: Verdict;
  /** So many fresh verdicts should be asked for now; 0 = enough are left. */
  readonly wanted: number;
}

export interface CacheDeps {
  /** Of everything verdicts are made of. */
  readonly generation: Generation;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly random: Random;
}

/** What a deck must know of the questions it serves. */
export interface DeckRules<Question, Verdict> {
  /** Equal for questions with the same verdict. */
  readonly keyOf: (question: Question) => string;
  /** A verdict on a question with the same key, for this one. */
  readonly fit: (verdict: Verdict, question: Question) => Verdict;
  readonly isKept: (verdict: Verdict) => boolean;
}

interface Deck<Verdict> {
  readonly verdicts: readonly Verdict[];
  /** Not dealt yet: the last ones. */
  fresh: number;
  /** Size of the next hand. */
  readonly next: number;
  isWaiting: boolean;
  readonly isChoice: boolean;
  readonly bornMs: number;
}

/**
 * Endpoints are chosen at random for each connection, so a verdict that chance had part in is dealt once. A deck that
 * runs low asks for more; one that has run out deals again what it dealt, any of it, until they come.
 */
export class DeckCache<Question, Verdict> {
  readonly #rules: DeckRules<Question, Verdict>;
  readonly #deps: CacheDeps;
  readonly #decks = new BoundedMap<string, Deck<Verdict>>(MAX_DECKS);
  #generation: number;

  constructor(rules: DeckRules<Question, Verdict>, deps: CacheDeps) {
    this.#rules = rules;
    this.#deps = deps;
    this.#generation = deps.generation.current;
  }

  get size(): number {
    return this.#decks.size;
  }

  /** `undefined`: ask. When `wanted` is not 0 the caller must ask for so many, and `add` or `failed` what came of it. */
  deal(question: Question): Dealt<Verdict> | undefined {
    this.#forgetOutdated();
    const key = this.#rules.keyOf(question);
    const deck = this.#decks.get(key);
    if (deck === undefined) return undefined;
    if (this.#deps.clock.monotonicMs() - deck.bornMs >= MAX_AGE_MS) {
      this.#decks.delete(key);
      return undefined;
    }
    const verdict = this.#draw(deck);
    const isLow = deck.isChoice && deck.fresh * 4 <= deck.verdicts.length && !deck.isWaiting;
    if (isLow) deck.isWaiting = true;
    return verdict && { verdict: this.#rules.fit(verdict, question), wanted: isLow ? deck.next : 0 };
  }

  /** Takes the answer to a question; the caller has used the first `used` verdicts of it. */
  add(question: Question, { verdicts, isChoice, isRepeatable, generation }: Hand<Verdict>, used: number): void {
    this.#forgetOutdated();
    if (!isRepeatable || generation !== this.#generation || !verdicts.every(this.#rules.isKept)) {
      this.failed(question);
      return;
    }
    this.#decks.set(this.#rules.keyOf(question), {
      verdicts,
      fresh: verdicts.length - used,
      next: Math.min(MAX_HAND, 2 * verdicts.length),
      isWaiting: false,
      isChoice,
      bornMs: this.#deps.clock.monotonicMs(),
    });
  }

  /** No hand came: the next deal may ask again. */
  failed(question: Question): void {
    const deck = this.#decks.get(this.#rules.keyOf(question));
    if (deck !== undefined) deck.isWaiting = false;
  }

  #draw(deck: Deck<Verdict>): Verdict | undefined {
    const { verdicts } = deck;
    if (deck.fresh > 0) return verdicts[verdicts.length - deck.fresh--];
    return verdicts[Math.floor(this.#deps.random.next() * verdicts.length)];
  }

  #forgetOutdated(): void {
    const { current } = this.#deps.generation;
    if (current === this.#generation) return;
    this.#generation = current;
    this.#decks.clear();
  }
}

export const OUTBOUND_RULES: DeckRules<OutboundQuestion, OutboundVerdict> = {
  keyOf: outboundKey,
  fit: outboundFor,
  isKept: ({ kind }) => kind !== 'refuse',
};

/** Answers with more addresses are asked for each time: a deck of them would be large. */
const MAX_ADDRESSES = 32;

export const DNS_RULES: DeckRules<DnsQuestion, DnsVerdict> = {
  keyOf: (question) => JSON.stringify(question),
  fit: (verdict) => verdict,
  isKept: (verdict) =>
    verdict.kind === 'forward' || (verdict.kind === 'answer' && verdict.addresses.length <= MAX_ADDRESSES),
};

/** An inbound verdict that may be used again. */
export interface InboundTicket {
  readonly verdict: InboundVerdict;
  /** What the owner of the mesh knows it by: a connection that uses it is registered with this number. */
  readonly ticket: number;
}

export class InboundCache {
  readonly #deps: Omit<CacheDeps, 'random'>;
  readonly #tickets: BoundedMap<string, InboundTicket & { readonly bornMs: number }>;
  readonly #onLeft: (ticket: number) => void;
  #generation: number;

  /** `onLeft`: the ticket will not be used any more. */
  constructor(deps: Omit<CacheDeps, 'random'>, onLeft: (ticket: number) => void) {
    this.#deps = deps;
    this.#onLeft = onLeft;
    this.#tickets = new BoundedMap(MAX_INBOUND, ({ ticket }) => onLeft(ticket));
    this.#generation = deps.generation.current;
  }

  get size(): number {
    return this.#tickets.size;
  }

  get(question: InboundQuestion): InboundTicket | undefined {
    this.#forgetOutdated();
    const key = inboundKey(question);
    const found = this.#tickets.get(key);
    if (found === undefined) return undefined;
    if (this.#deps.clock.monotonicMs() - found.bornMs < MAX_AGE_MS) {
      return { verdict: inboundFor(found.verdict, question), ticket: found.ticket };
    }
    this.#tickets.delete(key);
    return undefined;
  }

  add(question: InboundQuestion, { verdict, ticket }: InboundTicket, generation: number): void {
    this.#forgetOutdated();
    const key = inboundKey(question);
    if (generation !== this.#generation || key.length > MAX_INBOUND_KEY_CHARS) this.#onLeft(ticket);
    else this.#tickets.set(key, { verdict, ticket, bornMs: this.#deps.clock.monotonicMs() });
  }

  #forgetOutdated(): void {
    const { current } = this.#deps.generation;
    if (current === this.#generation) return;
    this.#generation = current;
    this.#tickets.clear();
  }
}
