/** Which pod may use how much: the setting, then the file's defaults, then the pod's annotation, then the file's entry for it. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { CapturedPod } from '../capture/pod-source.ts';
import { type Budget, type BudgetChange, parseBudget } from '../model/budget.ts';
import { readBounded, watchPath } from '../sys/files.ts';
import { type BudgetRules, NO_RULES, parseBudgetFile } from './budget-file.ts';

const BUDGET_ANNOTATION = 'culvert.io/budget';
/** Some thousand entries. */
const MAX_FILE_BYTES = 1024 * 1024;

/** Plain data: it goes to other threads. */
export interface BudgetTable {
  readonly standard: Budget;
  /** Pods with another one. */
  readonly byPod: readonly (readonly [uid: string, budget: Budget])[];
}

export type BudgetedPod = Pick<CapturedPod, 'uid' | 'name' | 'namespace' | 'serviceAccount' | 'annotations'>;

export interface BudgetsDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** Told when something is not what it was. */
  readonly onChange: (table: BudgetTable) => void;
}

export class Budgets implements Disposable {
  readonly #standard: Budget;
  readonly #deps: BudgetsDeps;
  readonly #watch: Disposable | undefined;
  #rules: BudgetRules = NO_RULES;
  #pods: readonly BudgetedPod[] = [];
  #told: BudgetTable;
  /** Annotations that were complained about, by pod; those of pods that are there. */
  #refused = new Map<string, string>();

  /** Reads the file at once and whenever it changes. One that cannot be used is reported, and what was in force stays. */
  constructor(settings: { readonly budget: Budget; readonly budgetsPath: string | undefined }, deps: BudgetsDeps) {
    const { budget, budgetsPath } = settings;
    this.#standard = budget;
    this.#deps = deps;
    this.#told = { standard: budget, byPod: [] };
    if (budgetsPath === undefined) return;
    const load = (): void => this.#load(budgetsPath);
    this.#watch = watchPath(budgetsPath, { clock: deps.clock, onChange: load });
    load();
  }

  /** The pods that are served, or soon will be. */
  serve(pods: readonly BudgetedPod[]): void {
    this.#pods = pods;
    this.#tell();
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
  }

  #load(path: string): void {
    const { log } = this.#deps;
    try {
      this.#rules = parseBudgetFile(readBounded(path, MAX_FILE_BYTES).toString('utf8'), path);
      log.info?.('budgets loaded', { path, workloads: this.#rules.workloads.length });
      this.#tell();
    } catch (error) {
      log.error?.('budgets not loaded, those in force stay', {
        reason: 'CV-BUDGET-INVALID',
        path,
        error: messageOf(error),
      });
    }
  }

  #tell(): void {
    const standard = { ...this.#standard, ...this.#rules.defaults };
    const refused = new Map<string, string>();
    const byPod = this.#pods.flatMap((pod): [string, Budget][] => {
      const change = { ...this.#annotated(pod, refused), ...this.#ruleFor(pod) };
      return Object.keys(change).length === 0 ? [] : [[pod.uid, { ...standard, ...change }]];
    });
    this.#refused = refused;
    const table = { standard, byPod };
    if (isDeepStrictEqual(table, this.#told)) return;
    this.#told = table;
    this.#deps.onChange(table);
  }

  #ruleFor(pod: BudgetedPod): BudgetChange {
    const rule = this.#rules.workloads.find(
      ({ namespace, pod: name = pod.name, serviceAccount = pod.serviceAccount }) =>
        namespace === pod.namespace && name === pod.name && serviceAccount === pod.serviceAccount,
    );
    return rule?.change ?? {};
  }

  /** Said once per pod and text. */
  #annotated({ uid, namespace, name, annotations }: BudgetedPod, refused: Map<string, string>): BudgetChange {
    const written = annotations?.[BUDGET_ANNOTATION];
    if (written === undefined) return {};
    const parsed = parseBudget(written);
    if ('value' in parsed) return parsed.value;
    refused.set(uid, written);
    if (this.#refused.get(uid) !== written) {
      this.#deps.log.warn?.('budget of a pod refused, it has the standard one', {
        reason: 'CV-BUDGET-INVALID',
        pod: `${namespace}/${name}`,
        annotation: BUDGET_ANNOTATION,
        error: parsed.problem,
      });
    }
    return {};
  }
}
