/** HPACK dynamic table (RFC 7541 §2.3.2, §4): newest first, bounded by octets. */

/** What an entry costs beyond its name and value (RFC 7541 §4.1). */
export const ENTRY_OVERHEAD_BYTES = 32;

export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

export class DynamicTable {
  /** Oldest first, so that insertion appends. `#oldest` entries at the front are already evicted. */
  #fields: HeaderField[] = [];
  #oldest = 0;
  #bytes = 0;
  #maxBytes: number;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get length(): number {
    return this.#fields.length - this.#oldest;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Entry `index` counted from the newest, 0-based; `undefined` past the end. */
  at(index: number): HeaderField | undefined {
    return index < this.length ? this.#fields[this.#fields.length - 1 - index] : undefined;
  }

  resize(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    this.#evictTo(maxBytes);
  }

  /** Evicts first; a field larger than the table empties it and is not stored (RFC 7541 §4.4). */
  insert(field: HeaderField): void {
    const bytes = field.name.length + field.value.length + ENTRY_OVERHEAD_BYTES;
    this.#evictTo(Math.max(0, this.#maxBytes - bytes));
    if (bytes > this.#maxBytes) return;
    this.#fields.push(field);
    this.#bytes += bytes;
  }

  #evictTo(bytes: number): void {
    while (this.#bytes > bytes) {
      const field = this.#fields[this.#oldest];
      if (field === undefined) break;
      this.#bytes -= field.name.length + field.value.length + ENTRY_OVERHEAD_BYTES;
      this.#oldest += 1;
    }
    // Compacting only when half is dead keeps eviction O(1) amortised, and the dead part bounded by the live one.
    if (this.#oldest * 2 > this.#fields.length) {
      this.#fields = this.#fields.slice(this.#oldest);
      this.#oldest = 0;
    }
  }
}
