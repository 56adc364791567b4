/** What was done during a soak, and what went wrong. Bounded, however long it takes. */

/** Failures told in full; all are counted. */
const MAX_FAILURES = 50;

export class Ledger {
  readonly counts: Record<string, number> = {};
  readonly failures: string[] = [];
  readonly #startedMs = performance.now();
  #failed = 0;

  get failed(): number {
    return this.#failed;
  }

  count(what: string, by = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + by;
  }

  fail(what: string, why: unknown): void {
    this.#failed += 1;
    if (this.failures.length >= MAX_FAILURES) return;
    const seconds = ((performance.now() - this.#startedMs) / 1_000).toFixed(1);
    this.failures.push(`${seconds} s, ${what}: ${why instanceof Error ? why.message : String(why)}`);
  }
}
