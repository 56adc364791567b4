/** Randomness as an interface, so that load balancing, jitter and ids are reproducible in tests. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** `bytes` random bytes as lower-case hex; unpredictable in production (trace ids, tokens). */
  hex(bytes: number): string;
}

/** Passes on what `random` says, and knows whether anybody asked for a number. */
export class WatchedRandom implements Random {
  readonly #random: Random;
  wasAsked = false;

  constructor(random: Random) {
    this.#random = random;
  }

  next(): number {
    this.wasAsked = true;
    return this.#random.next();
  }

  hex(bytes: number): string {
    return this.#random.hex(bytes);
  }
}
