/**
 * The list of pods in a file, YAML or JSON; every field but the last four is required, unknown fields are refused:
 *
 *     pods:
 *       - uid: 6f1c1f6e-0d53-4a52-9f5b-0f4f3e6f1f0a
 *         name: shop-0
 *         namespace: default
 *         serviceAccount: shop
 *         netns: /var/run/netns/shop-0
 *         ingressMode: false          # true: inbound plaintext is not captured
 *         dnsCapture: true            # false: DNS of this pod is left alone
 *         rerouteInterfaces: [tap0]   # TCP entering here is treated as outbound
 *         annotations:                # those of the pod; culvert.io/budget is looked at
 *           culvert.io/budget: connections=2000,loop=25%
 */
import { type ErrorFields, MeshError } from '../base/errors.ts';
import { apart } from '../sys/apart.ts';
import { decodeFile } from '../xds/decode-file.ts';
import { boolean, type Decoder, fieldsOf, type Issues, list, mappingOf, text, textLike } from '../xds/decode-value.ts';
import type { CapturedPod } from './pod-source.ts';
import { isInterfaceName } from './redirect-rules.ts';

/** Throws `CV-ENROL-SOURCE` with `file:line:column` of the first mistake: a list is taken whole or not at all. */
export function parsePodList(text: string, file: string): readonly CapturedPod[] {
  return decodeFile({ text, file, code: 'CV-ENROL-SOURCE', decode: podList, check: refuseDuplicates });
}

export interface PodFile {
  /** Its path. */
  readonly file: string;
  readonly text: string;
}

/** As plain values, which pass from thread to thread. */
export type PodFilesResult =
  | { readonly kind: 'pods'; readonly pods: readonly CapturedPod[] }
  | { readonly kind: 'refused'; readonly message: string; readonly fields: ErrorFields };

/** All of them together, or the first mistake. */
export function parsePodFiles(files: readonly PodFile[]): PodFilesResult {
  try {
    const found = files.flatMap(({ text, file }) => parsePodList(text, file).map((one) => ({ pod: one, file })));
    requireDistinct(found.map(({ pod: one, file }) => ({ ...one, file })));
    return { kind: 'pods', pods: found.map(({ pod: one }) => one) };
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    const { message, fields } = error;
    return { kind: 'refused', message, fields };
  }
}

/** The same in a thread of its own, for what would take long. Rejects when that has no memory for it. */
export function parsePodFilesApart(files: readonly PodFile[]): Promise<PodFilesResult> {
  return apart(import.meta.url, parsePodFiles, files);
}

const objectName = textLike(
  (value) => /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(value),
  'a Kubernetes object name',
  // Namespace and service account become parts of a SPIFFE id, so nothing else may pass.
  'use lower-case letters, digits, - and .',
);
const uidText = textLike(
  (value) => /^[A-Za-z0-9][-A-Za-z0-9._/]{0,252}$/.test(value),
  'a uid',
  'use letters, digits, - . _ and /',
);
const absolutePath = textLike(
  (value) => value.startsWith('/'),
  'an absolute path',
  'write it from the root: /var/run/netns/…',
);
const interfaceName = textLike(isInterfaceName, 'the name of a network interface', 'use letters, digits, - . _');

/** Of everybody who looks at the pod; what is ours is judged where it is used, so that a slip there harms that pod alone. */
const annotationMap: Decoder<Readonly<Record<string, string>>> = (value, place) => {
  const entries = [...(mappingOf(value, place) ?? [])].map(([key, written]) => {
    if (typeof key !== 'string') return place.refuse('the name of an annotation is no text', 'put it in quotes');
    const decoded = text(written, place.at(key));
    return decoded === undefined ? undefined : ([key, decoded] as const);
  });
  return Object.fromEntries(entries.filter((entry) => entry !== undefined));
};

const pod: Decoder<CapturedPod> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const uid = fields.required('uid', uidText);
  const name = fields.required('name', objectName);
  const namespace = fields.required('namespace', objectName);
  const serviceAccount = fields.required('serviceAccount', objectName);
  const netnsPath = fields.required('netns', absolutePath);
  const isIngressMode = fields.or('ingressMode', boolean, false);
  const dnsCapture = fields.optional('dnsCapture', boolean);
  const rerouteInterfaces = fields.or('rerouteInterfaces', list(interfaceName), []);
  const annotations = fields.optional('annotations', annotationMap);
  fields.end();
  if (uid === undefined || name === undefined || namespace === undefined) return undefined;
  if (serviceAccount === undefined || netnsPath === undefined) return undefined;
  const options = { isIngressMode, rerouteInterfaces, ...(dnsCapture !== undefined && { dnsCapture }) };
  return { uid, name, namespace, serviceAccount, netnsPath, options, ...(annotations && { annotations }) };
};

/** An empty file is no empty list: it is what a full disk or a slip leaves, and would take every pod out of the mesh. */
const podList: Decoder<readonly CapturedPod[]> = (value, place) => {
  if (value === null || value === undefined) return place.refuse('the file is empty', 'write "pods: []" for no pods');
  const fields = fieldsOf(value, place);
  const pods = fields?.required('pods', list(pod));
  fields?.end();
  return pods;
};

function refuseDuplicates(pods: readonly CapturedPod[], issues: Issues): void {
  for (const { index, field, value, other } of duplicates(pods)) {
    const problem = `${field} ${JSON.stringify(value)} is that of ${nameOf(other)} already`;
    issues.add({ path: ['pods', index, field], isKey: false, problem, cure: 'every pod has its own' });
  }
}

/** Throws for what no single file shows: two pods with one uid, or two that claim one namespace. */
export function requireDistinct(pods: readonly (CapturedPod & { readonly file: string })[]): void {
  const [first] = duplicates(pods);
  if (first === undefined) return;
  const { pod: twin, field, value, other } = first;
  const reason = `${nameOf(twin)} has the ${field} of ${nameOf(other)} in ${other.file}: ${value}`;
  throw new MeshError('CV-ENROL-SOURCE', `${twin.file}: ${reason}`, { file: twin.file, field });
}

interface Duplicate<P> {
  readonly index: number;
  readonly pod: P;
  readonly other: P;
  readonly field: 'uid' | 'netns';
  readonly value: string;
}

function duplicates<P extends CapturedPod>(pods: readonly P[]): Duplicate<P>[] {
  const seen = new Map<string, P>();
  return pods.flatMap((candidate, index) =>
    (['uid', 'netns'] as const).flatMap((field) => {
      const value = field === 'uid' ? candidate.uid : candidate.netnsPath;
      const key = `${field} ${value}`;
      const other = seen.get(key);
      if (other !== undefined) return [{ index, pod: candidate, other, field, value }];
      seen.set(key, candidate);
      return [];
    }),
  );
}

function nameOf({ namespace, name }: CapturedPod): string {
  return `${namespace}/${name}`;
}
