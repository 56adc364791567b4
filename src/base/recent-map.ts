/** A bounded map that forgets what was not asked for lately, without order lists, timers or scans. */

/**
 * Two generations: a full one becomes the former, and what is asked for moves into the new one. An entry stays as long as it
 * is asked for between two changes of generation; never more than twice `maxKeys` are held.
 */
export class RecentMap<V> {
  readonly #maxKeys: number;
  #current = new Map<string, V>();
  #former = new Map<string, V>();

  constructor(maxKeys: number) {
    this.#maxKeys = maxKeys;
  }

  get(key: string): V | undefined {
    const value = this.#current.get(key);
    if (value !== undefined) return value;
    const former = this.#former.get(key);
    if (former !== undefined) this.set(key, former);
    return former;
  }

  set(key: string, value: V): void {
    if (this.#current.size >= this.#maxKeys && !this.#current.has(key)) {
      this.#former = this.#current;
      this.#current = new Map();
    }
    this.#current.set(key, value);
  }

  delete(key: string): void {
    this.#current.delete(key);
    this.#former.delete(key);
  }
}
