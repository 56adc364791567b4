/**
 * The list of pods in a file, YAML or JSON; every field but the last two is required, unknown fields are refused:
 *
 *     pods:
 *       - uid: 6f1c1f6e-0d53-4a52-9f5b-0f4f3e6f1f0a
 *         name: shop-0
 *         namespace: default
 *         serviceAccount: shop
 *         netns: /var/run/netns/shop-0
 *         ingressMode: false          # true: inbound plaintext is not captured
 *         rerouteInterfaces: [tap0]   # TCP entering here is treated as outbound
 */
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, type YAMLMap } from 'yaml';
import { MeshError } from '../base/errors.ts';
import type { CapturedPod } from './pod-source.ts';
import { isInterfaceName } from './redirect-rules.ts';

/** Throws `CV-ENROL-SOURCE` with `file:line:column` of the first mistake: a list is taken whole or not at all. */
export function parsePodList(text: string, file: string): CapturedPod[] {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, version: '1.2', uniqueKeys: true });
  const refuse: Refuse = (node, reason) => refusal(file, lines, startOf(node), reason);
  const [broken] = document.errors;
  if (broken !== undefined) throw refusal(file, lines, broken.pos[0], broken.message.split('\n')[0] ?? 'not YAML');
  const root = new Fields(asNode(document.contents), refuse);
  const list = root.take('pods');
  root.requireNoOthers();
  if (!isSeq(list)) throw refuse(list ?? document.contents, '"pods" must be a list; write "pods: []" for none');
  return list.items.map((item) => podOf(asNode(item), refuse));
}

/** Refuses what no single pod shows: two with one uid, two that claim one namespace. */
export function requireDistinct(pods: readonly (CapturedPod & { readonly file: string })[]): void {
  for (const key of ['uid', 'netnsPath'] as const) {
    const seen = new Map<string, string>();
    for (const pod of pods) {
      const other = seen.get(pod[key]);
      if (other !== undefined) throw duplicate(key, pod, other);
      seen.set(pod[key], `${pod.namespace}/${pod.name} in ${pod.file}`);
    }
  }
}

function duplicate(key: 'uid' | 'netnsPath', pod: CapturedPod & { readonly file: string }, other: string): MeshError {
  const field = key === 'uid' ? 'uid' : 'netns';
  const reason = `${pod.namespace}/${pod.name} has the ${field} of ${other}: ${pod[key]}`;
  return new MeshError('CV-ENROL-SOURCE', `${pod.file}: ${reason}`, { file: pod.file, field });
}

type Refuse = (node: unknown, reason: string) => MeshError;

/** Kubernetes object names; namespace and service account become parts of a SPIFFE id, so nothing else may pass. */
const OBJECT_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;
const UID = /^[A-Za-z0-9][-A-Za-z0-9._/]{0,252}$/;
const ABSOLUTE_PATH = /^\/[^\0\n]{1,4094}$/;

function podOf(node: Node | undefined, refuse: Refuse): CapturedPod {
  const fields = new Fields(node, refuse);
  const pod = {
    uid: fields.text('uid', UID, 'letters, digits, - . _ /'),
    name: fields.text('name', OBJECT_NAME, 'a Kubernetes object name'),
    namespace: fields.text('namespace', OBJECT_NAME, 'a Kubernetes object name'),
    serviceAccount: fields.text('serviceAccount', OBJECT_NAME, 'a Kubernetes object name'),
    netnsPath: fields.text('netns', ABSOLUTE_PATH, 'an absolute path'),
    options: { isIngressMode: fields.flag('ingressMode'), rerouteInterfaces: fields.interfaces('rerouteInterfaces') },
  };
  fields.requireNoOthers();
  return pod;
}

/** A mapping whose fields are taken one by one; what nobody took is unknown. */
class Fields {
  readonly #map: YAMLMap;
  readonly #refuse: Refuse;
  readonly #taken = new Set<unknown>();

  constructor(node: Node | undefined, refuse: Refuse) {
    if (!isMap(node)) throw refuse(node, 'expected a mapping');
    this.#map = node;
    this.#refuse = refuse;
  }

  take(name: string): Node | undefined {
    const pair = this.#map.items.find(({ key }) => isScalar(key) && key.value === name);
    this.#taken.add(pair);
    return asNode(pair?.value);
  }

  text(name: string, pattern: RegExp, meaning: string): string {
    const node = this.take(name);
    const value = isScalar(node) ? node.value : undefined;
    if (node === undefined) throw this.#refuse(this.#map, `"${name}" is missing`);
    if (typeof value === 'string' && pattern.test(value)) return value;
    throw this.#refuse(node, `"${name}" must be ${meaning}`);
  }

  flag(name: string): boolean {
    const node = this.take(name);
    if (node === undefined) return false;
    if (isScalar(node) && typeof node.value === 'boolean') return node.value;
    throw this.#refuse(node, `"${name}" must be true or false`);
  }

  interfaces(name: string): string[] {
    const node = this.take(name);
    if (node === undefined) return [];
    if (!isSeq(node)) throw this.#refuse(node, `"${name}" must be a list`);
    return node.items.map((item) => {
      if (isScalar(item) && typeof item.value === 'string' && isInterfaceName(item.value)) return item.value;
      throw this.#refuse(item, `"${name}" holds something that is not the name of a network interface`);
    });
  }

  requireNoOthers(): void {
    const other = this.#map.items.find((pair) => !this.#taken.has(pair));
    if (other === undefined) return;
    const name = isScalar(other.key) ? String(other.key.value).slice(0, 60) : 'not a name';
    throw this.#refuse(other.key, `unknown field "${name}"`);
  }
}

/** Aliases are no nodes to us: nothing here is worth an expansion bomb. */
function asNode(value: unknown): Node | undefined {
  return isMap(value) || isSeq(value) || isScalar(value) ? value : undefined;
}

function startOf(node: unknown): number {
  return (isMap(node) || isSeq(node) || isScalar(node) ? node.range?.[0] : undefined) ?? 0;
}

function refusal(file: string, lines: LineCounter, offset: number, reason: string): MeshError {
  const { line, col } = lines.linePos(offset);
  return new MeshError('CV-ENROL-SOURCE', `${file}:${line}:${col}: ${reason}`, { file, line, column: col });
}
