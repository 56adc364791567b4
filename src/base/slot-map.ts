/**
 * A Map for values that come and go by the thousand, in the order of their first `set`.
 *
 * V8's Map and Set move into a new table now and then, and the table they leave points to the new one. Once a table has lived long
 * enough to be promoted to the old generation, it keeps its successor alive after its own end, and that its successor: until the next
 * full collection every value that was ever put in is copied and promoted, in pauses that all of the thread waits for. Here tables
 * hold keys and numbers of slots; a slot forgets its value at once.
 */
export class SlotMap<Key extends string | number, Value> {
  readonly #slotOf = new Map<Key, number>();
  readonly #slots: (Value | undefined)[] = [];
  readonly #free: number[] = [];

  get size(): number {
    return this.#slotOf.size;
  }

  has(key: Key): boolean {
    return this.#slotOf.has(key);
  }

  get(key: Key): Value | undefined {
    const slot = this.#slotOf.get(key);
    return slot === undefined ? undefined : this.#slots[slot];
  }

  set(key: Key, value: Value): void {
    let slot = this.#slotOf.get(key);
    if (slot === undefined) {
      slot = this.#free.pop() ?? this.#slots.length;
      this.#slotOf.set(key, slot);
    }
    this.#slots[slot] = value;
  }

  /** False: it was not there. */
  delete(key: Key): boolean {
    const slot = this.#slotOf.get(key);
    if (slot === undefined) return false;
    this.#slotOf.delete(key);
    this.#slots[slot] = undefined;
    this.#free.push(slot);
    if (this.#slotOf.size === 0) {
      // What a rush needed is given back.
      this.#slots.length = 0;
      this.#free.length = 0;
    }
    return true;
  }

  clear(): void {
    this.#slotOf.clear();
    this.#slots.length = 0;
    this.#free.length = 0;
  }

  keys(): MapIterator<Key> {
    return this.#slotOf.keys();
  }

  /** As of a Map: what is deleted meanwhile is left out. */
  *values(): Generator<Value, undefined> {
    // Every slot that a key has is in use.
    for (const slot of this.#slotOf.values()) yield this.#slots[slot] as Value;
  }
}
