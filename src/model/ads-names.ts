/** Which resources a client holds, by the names the control plane gave them. */
import { addTo, takeFrom } from '../base/multimap.ts';

export interface AdsResource {
  readonly name: string;
  /** Empty for types whose resources have none. */
  readonly version: string;
  /** Other names by which it may have been asked for. */
  readonly aliases: readonly string[];
  /** What it is: UID, `namespace/hostname` or `namespace/name`. A copy for a demanded address has another name than this. */
  readonly key: string;
}

/** A resource lives as long as its own name is held, or else any copy of it. */
export class AdsNames {
  readonly #versions = new Map<string, string>();
  /** Copies only: nearly every resource is named by its key. */
  readonly #keyOfCopy = new Map<string, string>();
  readonly #copiesOf = new Map<string, Set<string>>();

  get size(): number {
    return this.#versions.size;
  }

  has(name: string): boolean {
    return this.#versions.has(name);
  }

  /** By its own name, or by a copy. */
  isHeld(key: string): boolean {
    return this.#versions.has(key) || this.#copiesOf.has(key);
  }

  /** What `name` stands for, if it is held with exactly this version. */
  keyAt(name: string, version: string): string | undefined {
    return this.#versions.get(name) === version ? (this.#keyOfCopy.get(name) ?? name) : undefined;
  }

  names(): IterableIterator<string> {
    return this.#versions.keys();
  }

  versions(): ReadonlyMap<string, string> {
    return this.#versions;
  }

  /** Names of the copies of what is named `name`. */
  copiesOf(name: string): Iterable<string> {
    return this.#copiesOf.get(name) ?? [];
  }

  /** Key of what nobody refers to any more because `name` now means something else. */
  hold({ name, version, key }: AdsResource): string | undefined {
    const orphan = this.#keyOfCopy.get(name) === key ? undefined : this.#forgetCopy(name);
    this.#versions.set(name, version);
    if (name === key) return orphan;
    this.#keyOfCopy.set(name, key);
    addTo(this.#copiesOf, key, name);
    return orphan;
  }

  /** Key of what is gone with `name`. The name of a resource takes its copies along; an unknown name is its own key. */
  drop(name: string): string | undefined {
    this.#versions.delete(name);
    if (this.#keyOfCopy.has(name)) return this.#forgetCopy(name);
    for (const copy of this.copiesOf(name)) {
      this.#versions.delete(copy);
      this.#keyOfCopy.delete(copy);
    }
    this.#copiesOf.delete(name);
    return name;
  }

  #forgetCopy(name: string): string | undefined {
    const key = this.#keyOfCopy.get(name);
    if (key === undefined) return undefined;
    this.#keyOfCopy.delete(name);
    takeFrom(this.#copiesOf, key, name);
    return this.isHeld(key) ? undefined : key;
  }
}
