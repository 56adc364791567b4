/**
 * The list of pods in a file, YAML or JSON; every field but the last three is required, unknown fields are refused:
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
 */
import { MeshError } from '../base/errors.ts';
import { boolean, type Decoder, fieldsOf, Issues, list, Place, textLike } from '../xds/decode-value.ts';
import type { Position } from '../xds/document-result.ts';
import { readDocument } from '../xds/read-document.ts';
import type { CapturedPod } from './pod-source.ts';
import { isInterfaceName } from './redirect-rules.ts';

/** Throws `CV-ENROL-SOURCE` with `file:line:column` of the first mistake: a list is taken whole or not at all. */
export function parsePodList(text: string, file: string): readonly CapturedPod[] {
  const document = readDocument(text);
  if (document.kind === 'broken') {
    const mistakes = document.problems.map(({ position, problem, cure }) => ({ ...position, problem, cure }));
    throw refusal(file, mistakes);
  }
  const issues = new Issues();
  const pods = podList(document.value, new Place(issues)) ?? [];
  if (issues.count === 0) refuseDuplicates(pods, issues);
  if (issues.count === 0) return pods;
  throw refusal(
    file,
    issues.list.map(({ path, isKey, problem, cure }) => ({ ...document.positionOf(path, isKey), problem, cure })),
  );
}

interface Mistake extends Position {
  readonly problem: string;
  readonly cure: string;
}

function refusal(file: string, mistakes: readonly Mistake[]): MeshError {
  const [first, ...others] = mistakes.toSorted((a, b) => a.line - b.line || a.column - b.column);
  const { line, column, problem, cure } = first ?? { line: 1, column: 1, problem: 'unreadable', cure: 'write it anew' };
  const more = others.length === 0 ? '' : ` (and ${others.length} more)`;
  const message = `${file}:${line}:${column}: ${problem}; ${cure}${more}`;
  return new MeshError('CV-ENROL-SOURCE', message, { file, line, column });
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
  fields.end();
  if (uid === undefined || name === undefined || namespace === undefined) return undefined;
  if (serviceAccount === undefined || netnsPath === undefined) return undefined;
  const options = { isIngressMode, rerouteInterfaces, ...(dnsCapture === undefined ? {} : { dnsCapture }) };
  return { uid, name, namespace, serviceAccount, netnsPath, options };
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
