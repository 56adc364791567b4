/** Addresses of endpoints that are known by host name alone, resolved when a connection needs them. */
import { type Clock, withDeadline } from '../../base/clock.ts';
import { MeshError, messageOf } from '../../base/errors.ts';
import { RecentMap } from '../../base/recent-map.ts';
import type { HostLookup } from '../../sys/host-lookup.ts';

/** As many names as the reference keeps; up to twice that until the rarely used half goes. */
const MAX_NAMES = 4_096;
/** An application's connect attempt waits for this. */
const LOOKUP_TIMEOUT_MS = 5_000;
/** A record with TTL 0 would mean a question per connection; one of a year would outlive every move. */
const TTL_MS = { min: 1_000, max: 300_000 } as const;
/** How long nothing, and a failure, count. */
const NEGATIVE_MS = 5_000;

interface Known {
  readonly untilMs: number;
  readonly ips: readonly string[];
  readonly failure?: MeshError;
}

export class HostNames {
  readonly #lookup: HostLookup;
  readonly #clock: Clock;
  readonly #known = new RecentMap<Known>(MAX_NAMES);
  /** Bounded by the connections that wait. */
  readonly #open = new Map<string, Promise<Known>>();

  constructor(lookup: HostLookup, clock: Clock) {
    this.#lookup = lookup;
    this.#clock = clock;
  }

  /** Empty when the name has no address. Rejects when nobody could say. */
  async addressesOf(hostname: string): Promise<readonly string[]> {
    const known = this.#known.get(hostname);
    const current =
      known !== undefined && known.untilMs > this.#clock.monotonicMs() ? known : await this.#ask(hostname);
    if (current.failure !== undefined) throw current.failure;
    return current.ips;
  }

  /** One question at a time per name, however many connections wait for it. */
  async #ask(hostname: string): Promise<Known> {
    const open = this.#open.get(hostname) ?? this.#find(hostname);
    this.#open.set(hostname, open);
    try {
      const known = await open;
      this.#known.set(hostname, known);
      return known;
    } finally {
      this.#open.delete(hostname);
    }
  }

  async #find(hostname: string): Promise<Known> {
    const late = (): MeshError =>
      new MeshError('CV-NO-ADDRESS', `no answer for ${hostname} within ${LOOKUP_TIMEOUT_MS / 1_000} s`);
    try {
      const records = await withDeadline(this.#lookup(hostname), this.#clock, LOOKUP_TIMEOUT_MS, late);
      const ttlMs = Math.min(...records.map((record) => record.ttlMs), TTL_MS.max);
      const keepMs = records.length === 0 ? NEGATIVE_MS : Math.max(ttlMs, TTL_MS.min);
      return { untilMs: this.#clock.monotonicMs() + keepMs, ips: [...new Set(records.map(({ ip }) => ip))] };
    } catch (error) {
      const failure = new MeshError('CV-NO-ADDRESS', messageOf(error), {}, { cause: error });
      return { untilMs: this.#clock.monotonicMs() + NEGATIVE_MS, ips: [], failure };
    }
  }
}
