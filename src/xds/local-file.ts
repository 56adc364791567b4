/** The mesh as one YAML or JSON file: taken whole or refused whole, with every mistake by line. */
import type { MeshState } from '../model/mesh-index.ts';
import { apart } from '../sys/apart.ts';
import { policy } from './decode-policy.ts';
import { type DecodedService, type ListedEndpoint, service } from './decode-service.ts';
import { type Decoder, fieldsOf, type Issue, Issues, list, Place } from './decode-value.ts';
import { workload } from './decode-workload.ts';
import type { Position } from './document-result.ts';
import {
  checkDuplicates,
  checkReferences,
  findOddities,
  type Placed,
  type PlacedMesh,
  withListedEndpoints,
} from './mesh-checks.ts';
import { readDocument } from './read-document.ts';

/** One mistake, ready to show. */
export interface MeshFileIssue extends Position {
  /** `workloads[2].services`; empty text = the file as a whole. */
  readonly field: string;
  readonly problem: string;
  readonly cure: string;
}

export type MeshFileResult =
  /** `warnings`: allowed, but probably not meant. */
  | { readonly kind: 'mesh'; readonly state: MeshState; readonly warnings: readonly MeshFileIssue[] }
  /** `issues` holds the first hundred of `issueCount`; never empty. */
  | { readonly kind: 'refused'; readonly issues: readonly MeshFileIssue[]; readonly issueCount: number };

/** After the first few, a parser that has lost its way only repeats itself. */
const MAX_SYNTAX_PROBLEMS = 10;

export function parseMeshFile(text: string): MeshFileResult {
  const document = readDocument(text);
  if (document.kind === 'broken') {
    const issues = document.problems.map(({ position, problem, cure }) => ({ ...position, field: '', problem, cure }));
    return { kind: 'refused', issues: issues.slice(0, MAX_SYNTAX_PROBLEMS), issueCount: issues.length };
  }
  const issues = new Issues();
  const warnings = new Issues();
  const mesh = decodeMesh(document.value, issues);
  if (issues.count === 0) checkReferences(mesh, issues);
  if (issues.count === 0) findOddities(mesh, warnings);
  const show = (issue: Issue): MeshFileIssue => shown(issue, document.positionOf);
  if (issues.count > 0)
    return { kind: 'refused', issues: issues.list.map(show).toSorted(byPosition), issueCount: issues.count };
  return { kind: 'mesh', state: stateOf(mesh), warnings: warnings.list.map(show) };
}

/** The same in a thread of its own, for what would take long. Rejects when that has no memory for it. */
export function parseMeshFileApart(text: string): Promise<MeshFileResult> {
  return apart(import.meta.url, parseMeshFile, text);
}

/** `file:line:column: field: problem; cure`. */
export function issueText(file: string, { line, column, field, problem, cure }: MeshFileIssue): string {
  return `${file}:${line}:${column}: ${field === '' ? '' : `${field}: `}${problem}; ${cure}`;
}

function byPosition(a: Position, b: Position): number {
  return a.line - b.line || a.column - b.column;
}

function decodeMesh(value: unknown, issues: Issues): PlacedMesh {
  const root = new Place(issues);
  if (value === null || value === undefined)
    root.refuse('the file is empty', 'write "workloads: []" for an empty mesh');
  const fields = value === null || value === undefined ? undefined : fieldsOf(value, root);
  const workloads = fields?.or('workloads', list(placed(workload)), []) ?? [];
  const services = fields?.or('services', list(placed(service)), []) ?? [];
  const policies = fields?.or('policies', list(placed(policy)), []) ?? [];
  fields?.end();
  const endpoints: readonly ListedEndpoint[] = services.flatMap(({ record }) => record.endpoints);
  const mesh: PlacedMesh = {
    workloads: withListedEndpoints(workloads, endpoints, issues),
    services: services.map(({ path, record }: Placed<DecodedService>) => ({ path, record: record.service })),
    policies,
  };
  checkDuplicates(mesh, issues);
  return mesh;
}

function placed<T>(decode: Decoder<T>): Decoder<Placed<T>> {
  return (value, place) => {
    const record = decode(value, place);
    return record === undefined ? undefined : { path: place.path, record };
  };
}

function stateOf({ workloads, services, policies }: PlacedMesh): MeshState {
  return {
    workloads: workloads.map(({ record }) => record),
    services: services.map(({ record }) => record),
    policies: policies.map(({ record }) => record),
    rejectedPolicies: [],
  };
}

function shown(issue: Issue, positionOf: (path: Issue['path'], isKey?: boolean) => Position): MeshFileIssue {
  const first = issue.firstPath && positionOf(issue.firstPath);
  const problem = first === undefined ? issue.problem : `${issue.problem}, first at ${first.line}:${first.column}`;
  return { ...positionOf(issue.path, issue.isKey), field: fieldText(issue.path), problem, cure: issue.cure };
}

function fieldText(path: Issue['path']): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text;
}
