/** Answers to one kind of question in which chance may have a part, from a cache where it has them. */
import type { Generation } from '../../model/generation.ts';
import { type CacheDeps, DeckCache, type DeckRules, FIRST_HAND, type Hand } from '../../model/verdict-cache.ts';
import { currentAnswer } from './current-answer.ts';
import type { Draw } from './protocol.ts';

export class DrawnVerdicts<Question, Verdict> {
  readonly #cache: DeckCache<Question, Verdict>;
  readonly #draw: Draw<Question, Verdict>;
  readonly #generation: Generation;

  constructor(rules: DeckRules<Question, Verdict>, draw: Draw<Question, Verdict>, deps: CacheDeps) {
    this.#cache = new DeckCache(rules, deps);
    this.#draw = draw;
    this.#generation = deps.generation;
  }

  get size(): number {
    return this.#cache.size;
  }

  async get(question: Question): Promise<Verdict> {
    const dealt = this.#cache.deal(question);
    if (dealt === undefined) {
      const hand = await this.#ask(question, FIRST_HAND);
      this.#cache.add(question, hand, 1);
      return hand.verdicts[0];
    }
    if (dealt.wanted > 0) void this.#refill(question, dealt.wanted);
    return dealt.verdict;
  }

  async #refill(question: Question, count: number): Promise<void> {
    try {
      this.#cache.add(question, await this.#ask(question, count), 0);
    } catch {
      // Whoever needs the answer asks itself, and is told what is wrong.
      this.#cache.failed(question);
    }
  }

  #ask(question: Question, count: number): Promise<Hand<Verdict>> {
    return currentAnswer(this.#generation, () => this.#draw({ question, count }));
  }
}
