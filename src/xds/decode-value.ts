/** Reads untyped values into typed ones and collects everything that is wrong, each with its place and a cure. */

/** Keys and positions from the root of the document. */
export type Path = readonly unknown[];

export interface Issue {
  readonly path: Path;
  /** The key itself is wrong, not its value. */
  readonly isKey: boolean;
  readonly problem: string;
  readonly cure: string;
  /** Where the same thing was first said. */
  readonly firstPath?: Path;
}

/** Issues kept; a file with more is not read to the end by anybody. */
const MAX_ISSUES = 100;

export class Issues {
  readonly #list: Issue[] = [];
  #count = 0;

  add(issue: Issue): void {
    this.#count += 1;
    if (this.#list.length < MAX_ISSUES) this.#list.push(issue);
  }

  /** The first hundred. */
  get list(): readonly Issue[] {
    return this.#list;
  }

  get count(): number {
    return this.#count;
  }
}

/** One value's position, and where to complain about it. */
export class Place {
  readonly issues: Issues;
  readonly path: Path;
  readonly #isKey: boolean;

  constructor(issues: Issues, path: Path = [], isKey = false) {
    this.issues = issues;
    this.path = path;
    this.#isKey = isKey;
  }

  at(key: unknown): Place {
    return new Place(this.issues, [...this.path, key]);
  }

  /** For complaints about the key itself. */
  atKey(key: unknown): Place {
    return new Place(this.issues, [...this.path, key], true);
  }

  /** Notes that the value is wrong; returns `undefined` so that decoders can end with it. */
  refuse(problem: string, cure: string): undefined {
    this.issues.add({ path: this.path, isKey: this.#isKey, problem, cure });
  }
}

/** `undefined` = refused, and the place has been told why. */
export type Decoder<T> = (value: unknown, place: Place) => T | undefined;

/** The fields of one mapping. Whatever is not asked for before `end` is an unknown field. */
export class Fields {
  readonly #values: ReadonlyMap<unknown, unknown>;
  readonly #place: Place;
  readonly #known: string[] = [];

  constructor(values: ReadonlyMap<unknown, unknown>, place: Place) {
    this.#values = values;
    this.#place = place;
  }

  required<T>(key: string, decode: Decoder<T>): T | undefined {
    this.#known.push(key);
    const value = this.#values.get(key);
    if (value !== undefined && value !== null) return decode(value, this.#place.at(key));
    return this.#place.refuse(`mandatory field "${key}" is missing`, `add ${key}`);
  }

  /** `null` counts as absent. */
  optional<T>(key: string, decode: Decoder<T>): T | undefined {
    this.#known.push(key);
    const value = this.#values.get(key);
    return value === undefined || value === null ? undefined : decode(value, this.#place.at(key));
  }

  /** `fallback` also stands in for a refused value: the refusal is noted, so the record is not used. */
  or<T>(key: string, decode: Decoder<T>, fallback: T): T {
    return this.optional(key, decode) ?? fallback;
  }

  end(): void {
    for (const key of this.#values.keys()) {
      if (typeof key === 'string' && this.#known.includes(key)) continue;
      const name = typeof key === 'string' || typeof key === 'number' ? quote(String(key)) : 'that is no name';
      this.#place.atKey(key).refuse(`unknown field ${name}`, `use one of: ${this.#known.join(', ')}`);
    }
  }
}

export function fieldsOf(value: unknown, place: Place): Fields | undefined {
  const values = mappingOf(value, place);
  return values && new Fields(values, place);
}

export function mappingOf(value: unknown, place: Place): ReadonlyMap<unknown, unknown> | undefined {
  if (value instanceof Map) return value;
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return new Map(Object.entries(value));
  return place.refuse(`expected a mapping, found ${describe(value)}`, 'write "key: value" lines or {key: value}');
}

export function list<T>(decode: Decoder<T>): Decoder<readonly T[]> {
  return (value, place) => {
    if (!Array.isArray(value))
      return place.refuse(`expected a list, found ${describe(value)}`, 'write [] or "- item" lines');
    return value.flatMap((item, i) => {
      const decoded = decode(item, place.at(i));
      return decoded === undefined ? [] : [decoded];
    });
  };
}

/** Longest text field, characters; host names and UIDs stay under it. */
const MAX_TEXT = 1_024;

/** Printable text; empty is allowed. Control characters would end up in headers and logs. */
export const text: Decoder<string> = (value, place) => {
  if (typeof value !== 'string') {
    return place.refuse(`expected text, found ${describe(value)}`, 'put the value in quotes');
  }
  if (value.length > MAX_TEXT) return place.refuse(`text is over ${MAX_TEXT} characters`, 'shorten it');
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\x00-\x1f\x7f-\x9f]/.test(value)) return place.refuse('text holds a control character', 'remove it');
  return value;
};

export const boolean: Decoder<boolean> = (value, place) =>
  typeof value === 'boolean'
    ? value
    : place.refuse(`expected true or false, found ${describe(value)}`, 'write true or false');

export function integer(min: number, max: number): Decoder<number> {
  return (value, place) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
      ? value
      : place.refuse(`expected a whole number ${min}..${max}, found ${describe(value)}`, `use ${min}..${max}`);
}

export function oneOf<const T extends string>(...allowed: readonly T[]): Decoder<T> {
  return (value, place) =>
    allowed.find((candidate) => candidate === value) ??
    place.refuse(`${describe(value)} is not known here`, `use one of: ${allowed.join(', ')}`);
}

/** Text that also has to pass `test`; `what` completes "is not …". */
export function textLike(test: (value: string) => boolean, what: string, cure: string): Decoder<string> {
  return (value, place) => {
    const decoded = text(value, place);
    if (decoded === undefined || test(decoded)) return decoded;
    return place.refuse(`${quote(decoded)} is not ${what}`, cure);
  };
}

/** Longest piece of a value shown in a message, characters. */
const MAX_SHOWN = 80;

export function quote(value: string): string {
  return JSON.stringify(value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value);
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (typeof value === 'string') return quote(value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return Array.isArray(value) ? 'a list' : 'a mapping';
}
