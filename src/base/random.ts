/** Randomness as an interface, so that load balancing, jitter and ids are reproducible in tests. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** `bytes` random bytes as lower-case hex; unpredictable in production (trace ids, tokens). */
  hex(bytes: number): string;
}
