/** One problem is one log line, however many identities have it: a CA that is away must not fill the log. */
import { addTo, takeFrom } from '../base/multimap.ts';

export class FailureLog {
  /** Problem → identities that have it. */
  readonly #identities = new Map<string, Set<string>>();
  /** Identity → its problem. */
  readonly #problems = new Map<string, string>();

  /** True when nobody had this problem. */
  failed(identity: string, problem: string): boolean {
    if (this.#problems.get(identity) === problem) return false;
    this.recovered(identity);
    this.#problems.set(identity, problem);
    const isNew = !this.#identities.has(problem);
    addTo(this.#identities, problem, identity);
    return isNew;
  }

  /** The identity has no problem any more. Returns the one it had when it was the last to have it. */
  recovered(identity: string): string | undefined {
    const problem = this.#problems.get(identity);
    if (problem === undefined) return undefined;
    this.#problems.delete(identity);
    takeFrom(this.#identities, problem, identity);
    return this.#identities.has(problem) ? undefined : problem;
  }
}
