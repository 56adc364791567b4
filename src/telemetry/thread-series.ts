/** What each thread holds, as metrics: handles and timers, memory, entries of its maps. What grows with time shows here. */
import type { Family, Sample } from './openmetrics.ts';

type Counts = Readonly<Record<string, number>>;

/** Keys are of closed sets. */
export interface Holdings {
  /** Handles, requests and timers by type, as Node calls them. */
  readonly resources: Counts;
  /** Bytes by kind. */
  readonly memory: Counts;
  /** Entries of maps that grow and shrink with what is open, by map. */
  readonly maps: Counts;
  /** Entries of bounded caches, which stay until others need their place. */
  readonly caches: Counts;
}

/** By name of thread. */
type Look = () => Promise<ReadonlyMap<string, Holdings>>;

/** Named as prom-client names its own, which knows one thread. */
const RESOURCES = { name: 'nodejs_active_resources', help: 'Handles, requests and timers by type', label: 'type' };
const MEMORY = { name: 'culvert_thread_memory_bytes', help: 'Memory of a thread by kind, in use', label: 'kind' };
const MAPS = { name: 'culvert_map_entries', help: 'Entries of maps of what is open', label: 'map' };
const CACHES = { name: 'culvert_cache_entries', help: 'Entries of bounded caches', label: 'cache' };

export class ThreadTable {
  #look: Look = async () => new Map();

  /** `look` is called at every scrape; a thread that does not answer has no series then. */
  watch(look: Look): void {
    this.#look = look;
  }

  async families(): Promise<readonly Family[]> {
    const threads = await this.#look();
    return [
      family(RESOURCES, threads, ({ resources }) => resources),
      { ...family(MEMORY, threads, ({ memory }) => memory), unit: 'bytes' },
      family(MAPS, threads, ({ maps }) => maps),
      family(CACHES, threads, ({ caches }) => caches),
    ];
  }
}

function family(
  { name, help, label }: typeof RESOURCES,
  threads: ReadonlyMap<string, Holdings>,
  of: (held: Holdings) => Counts,
): Family {
  const samples: Sample[] = [];
  for (const [thread, held] of threads) {
    for (const [key, value] of Object.entries(of(held))) samples.push({ labels: { thread, [label]: key }, value });
  }
  return { name, help: `${help} (unstable).`, type: 'gauge', samples };
}
