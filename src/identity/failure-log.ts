/** One problem is one log line, however many identities have it: a CA that is away must not fill the log. */

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
    const sharing = this.#identities.get(problem);
    if (sharing === undefined) this.#identities.set(problem, new Set([identity]));
    else sharing.add(identity);
    return sharing === undefined;
  }

  /** The identity has no problem any more. Returns the one it had when it was the last to have it. */
  recovered(identity: string): string | undefined {
    const problem = this.#problems.get(identity);
    if (problem === undefined) return undefined;
    this.#problems.delete(identity);
    const sharing = this.#identities.get(problem);
    sharing?.delete(identity);
    if (sharing?.size !== 0) return undefined;
    this.#identities.delete(problem);
    return problem;
  }
}
