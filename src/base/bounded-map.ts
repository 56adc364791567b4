/** A map with a bound: the least recently used entry makes room. */

export class BoundedMap<Key, Value> {
  readonly #entries = new Map<Key, Value>();
  readonly #maxEntries: number;
  readonly #onLeft: (value: Value) => void;

  /** `onLeft` is told of each value that is in the map no more, for whatever reason. */
  constructor(maxEntries: number, onLeft: (value: Value) => void = () => {}) {
    this.#maxEntries = maxEntries;
    this.#onLeft = onLeft;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Least recently used first. */
  values(): Iterable<Value> {
    return this.#entries.values();
  }

  /** Counts as a use. */
  get(key: Key): Value | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  set(key: Key, value: Value): void {
    this.delete(key);
    this.#entries.set(key, value);
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > this.#maxEntries && oldest !== undefined) this.delete(oldest);
  }

  delete(key: Key): void {
    const value = this.#entries.get(key);
    if (this.#entries.delete(key) && value !== undefined) this.#onLeft(value);
  }

  clear(): void {
    for (const key of [...this.#entries.keys()]) this.delete(key);
  }
}
