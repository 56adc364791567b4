/** `/config_dump` as the command line reads it: the fields it shows, decoded with care, since any agent may have written it. */
import { type AdminAddress, getJson } from './admin-client.ts';
import { readDumpFile } from './dump-file.ts';
import { CliError, EXIT_FAILURE } from './exit-codes.ts';

export type JsonObject = Readonly<Record<string, unknown>>;

export interface MeshDump {
  readonly workloads: readonly JsonObject[];
  readonly services: readonly JsonObject[];
  readonly policies: readonly JsonObject[];
  readonly certificates: readonly JsonObject[];
  /** Uid of the pod → its state and connections; empty in dumps without capture. */
  readonly workloadState: JsonObject;
  /** As it came. */
  readonly whole: unknown;
}

const SECTIONS = ['workloads', 'services', 'policies', 'certificates'] as const;

export type Section = (typeof SECTIONS)[number];

const CURE = 'ask an agent for it, on its port 15000';

/**
 * From the file when one is named, else from the agent: all of it, or at least the sections that are named. The others are
 * empty then, unless the agent is one that tells everything always, as ztunnel does.
 */
export async function readMeshDump(
  source: { admin: AdminAddress; file?: string },
  sections: readonly Section[] = [],
): Promise<MeshDump> {
  const query = sections.map((section, index) => `${index === 0 ? '?' : '&'}section=${section}`).join('');
  const whole =
    source.file === undefined ? await getJson(source.admin, `/config_dump${query}`) : readDumpFile(source.file);
  const dump = objectOf(whole);
  if (!SECTIONS.some((section) => section in dump)) {
    // Else an agent of another kind would have no policies, and so seem to allow everything.
    const what = source.file ?? 'what answered /config_dump';
    throw new CliError(
      EXIT_FAILURE,
      `${what} has none of ${SECTIONS.join(', ')}: it is no config_dump of this mesh; ${CURE}`,
    );
  }
  return {
    whole,
    workloadState: objectOf(dump['workloadState']),
    workloads: sorted(listOf(dump['workloads'])),
    services: sorted(listOf(dump['services'])),
    policies: sorted(listOf(dump['policies'])),
    certificates: listOf(dump['certificates']),
  };
}

/** Objects of a list; ztunnel's older dumps hold a map instead. Whatever is neither is left out. */
export function listOf(value: unknown): readonly JsonObject[] {
  const items: readonly unknown[] = Array.isArray(value) ? value : Object.values(objectOf(value));
  return items.filter(isObject);
}

export function objectOf(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

export function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}

export function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(textOf) : [];
}

/** What a waypoint reference means: the name of a service in the dump, `None`, or `NA` when the dump has no such thing. */
export function waypointNames(services: readonly JsonObject[]): (owner: JsonObject) => string {
  const names = new Map<string, string>();
  for (const service of services) {
    const name = textOf(service['name']);
    const references = [`${textOf(service['namespace'])}/${textOf(service['hostname'])}`, ...textsOf(service['vips'])];
    for (const reference of references) if (!names.has(reference)) names.set(reference, name);
  }
  return ({ waypoint }) => (isObject(waypoint) ? (names.get(textOf(waypoint['destination'])) ?? 'NA') : 'None');
}

/** Objects of one namespace, or all. */
export function inNamespace(items: readonly JsonObject[], namespace: string | undefined): readonly JsonObject[] {
  return namespace === undefined ? items : items.filter((item) => item['namespace'] === namespace);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** By namespace, then name. */
function sorted(items: readonly JsonObject[]): readonly JsonObject[] {
  const key = (item: JsonObject) => `${textOf(item['namespace'])}\n${textOf(item['name'])}`;
  return items.toSorted((a, b) => (key(a) < key(b) ? -1 : Number(key(a) > key(b))));
}
