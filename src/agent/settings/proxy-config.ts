/**
 * ProxyConfig, Istio's own description of a proxy: `defaultConfig` of the mesh file, then `PROXY_CONFIG` over it key by
 * key, then `ISTIO_META_*` variables over its `proxyMetadata`. Keys we do not know are ignored.
 */
import { parse } from 'yaml';
import { messageOf } from '../../base/errors.ts';
import type { ConfigIssue, Environment, Start } from './input.ts';

export type ProxyConfigKey = 'discoveryAddress' | 'proxyAdminPort' | 'statsPort' | 'concurrency';

export interface ProxyConfig {
  /** As text, as if they were variables: whoever reads one checks it. */
  readonly values: Readonly<Partial<Record<ProxyConfigKey, string>>>;
  /** Without the prefix `ISTIO_META_`; keys that have none stay as they are. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly issues: readonly ConfigIssue[];
}

/** Where Istio mounts its mesh configuration, relative to the working directory. */
const MESH_CONFIG_PATH = './etc/istio/config/mesh';

const KEYS: readonly ProxyConfigKey[] = ['discoveryAddress', 'proxyAdminPort', 'statsPort', 'concurrency'];
const META_PREFIX = 'ISTIO_META_';

type Values = Partial<Record<ProxyConfigKey, string>>;
type Mapping = Readonly<Record<string, unknown>>;

interface Merged {
  readonly values: Values;
  readonly metadata: Record<string, string>;
  readonly issues: ConfigIssue[];
}

export function readProxyConfig(env: Environment, readText: Start['readText']): ProxyConfig {
  const merged: Merged = { values: {}, metadata: {}, issues: [] };
  merge(merged, MESH_CONFIG_PATH, () => member(parseMapping(readText(MESH_CONFIG_PATH)), 'defaultConfig'));
  merge(merged, 'PROXY_CONFIG', () => parseMapping(env['PROXY_CONFIG']));
  for (const [name, value] of Object.entries(env)) {
    if (name.startsWith(META_PREFIX) && value !== undefined) merged.metadata[name.slice(META_PREFIX.length)] = value;
  }
  return merged;
}

/** A document that cannot be understood is one issue, and none of it is taken. */
function merge({ values, metadata, issues }: Merged, setting: string, read: () => Mapping): void {
  try {
    const document = read();
    const found = KEYS.flatMap((key) => textEntry(document, key));
    const foundMetadata = metadataOf(document);
    Object.assign(values, Object.fromEntries(found));
    Object.assign(metadata, foundMetadata);
  } catch (error) {
    issues.push({ setting, problem: `cannot be used: ${messageOf(error)}` });
  }
}

function metadataOf(document: Mapping): Record<string, string> {
  const entries = Object.entries(member(document, 'proxyMetadata'));
  return Object.fromEntries(
    entries.map(([name, value]) => [
      name.startsWith(META_PREFIX) ? name.slice(META_PREFIX.length) : name,
      scalarText(value, `proxyMetadata.${name}`),
    ]),
  );
}

/** Nothing when `key` is absent or null. */
function textEntry(document: Mapping, key: ProxyConfigKey): [ProxyConfigKey, string][] {
  const value = document[key] ?? undefined;
  return value === undefined ? [] : [[key, scalarText(value, key)]];
}

function parseMapping(text: string | undefined): Mapping {
  return text === undefined ? {} : mapping(parse(text), 'it');
}

function member(document: Mapping, key: string): Mapping {
  return mapping(document[key], key);
}

function mapping(value: unknown, what: string): Mapping {
  if (value === undefined || value === null) return {};
  if (typeof value !== 'object' || Array.isArray(value)) throw new Error(`${what} must be a YAML mapping`);
  return value as Mapping;
}

function scalarText(value: unknown, what: string): string {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw new Error(`${what} must be one value`);
}
