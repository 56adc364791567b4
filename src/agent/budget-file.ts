/**
 * Budgets in a file (`--budgets`), YAML or JSON; every field is optional but `namespace`, unknown fields are refused:
 *
 *     defaults: {connections: 20000, handshakes: 500/s}
 *     workloads:
 *       - namespace: shop
 *         pod: web-0            # or serviceAccount; without either all pods of the namespace
 *         connections: 2000
 *         handshakes: 50/s
 *         buffers: 64Mi
 *         loop: 25%             # of each event loop
 *
 * The first entry that fits a pod is its own; what the entry does not say is as without it.
 */
import { BUDGET_KEYS, type BudgetChange, parseBudgetValue } from '../model/budget.ts';
import { decodeFile } from '../xds/decode-file.ts';
import { type Decoder, type Fields, fieldsOf, list, text } from '../xds/decode-value.ts';

export interface BudgetRule {
  readonly namespace: string;
  readonly pod?: string;
  readonly serviceAccount?: string;
  readonly change: BudgetChange;
}

export interface BudgetRules {
  readonly defaults: BudgetChange;
  readonly workloads: readonly BudgetRule[];
}

export const NO_RULES: BudgetRules = { defaults: {}, workloads: [] };

/** Throws `CV-BUDGET-INVALID` with `file:line:column` of the first mistake. */
export function parseBudgetFile(content: string, file: string): BudgetRules {
  return decodeFile({ text: content, file, code: 'CV-BUDGET-INVALID', decode: rules });
}

/** An empty file is not one without budgets: it is what a full disk or a slip leaves, and would lift all of them. */
const rules: Decoder<BudgetRules> = (value, place) => {
  if (value === null || value === undefined) return place.refuse('the file is empty', 'write "{}" for no budgets');
  const fields = fieldsOf(value, place);
  const defaults = fields?.or('defaults', change, {}) ?? {};
  const workloads = fields?.or('workloads', list(rule), []) ?? [];
  fields?.end();
  return { defaults, workloads };
};

const change: Decoder<BudgetChange> = (value, place) => {
  const fields = fieldsOf(value, place);
  const decoded = fields && changeIn(fields);
  fields?.end();
  return decoded;
};

const rule: Decoder<BudgetRule> = (value, place) => {
  const fields = fieldsOf(value, place);
  const namespace = fields?.required('namespace', text);
  const pod = fields?.optional('pod', text);
  const serviceAccount = fields?.optional('serviceAccount', text);
  const decoded = fields && changeIn(fields);
  fields?.end();
  if (namespace === undefined || decoded === undefined) return undefined;
  return {
    namespace,
    ...(pod !== undefined && { pod }),
    ...(serviceAccount !== undefined && { serviceAccount }),
    change: decoded,
  };
};

function changeIn(fields: Fields): BudgetChange {
  const parts = BUDGET_KEYS.map((key) =>
    fields.optional<BudgetChange>(key, (value, place) => {
      const written = typeof value === 'number' ? String(value) : value;
      if (typeof written !== 'string') return place.refuse(`${key} is no text and no number`, 'write one value');
      const parsed = parseBudgetValue(key, written);
      return 'problem' in parsed ? place.refuse(parsed.problem, 'write a value within these bounds') : parsed.value;
    }),
  );
  return Object.assign({}, ...parts) as BudgetChange;
}
