/** What each workload may use of the agent. */
import { type Budget, parseBudget } from '../../model/budget.ts';
import type { SettingsReader } from './reader.ts';

export interface BudgetSettings {
  /** Workloads take turns on the event loops. */
  readonly isFair: boolean;
  /** Of a pod of which nothing else is said. */
  readonly budget: Budget;
  /** See `budget-file.ts`. */
  readonly budgetsPath: string | undefined;
}

/**
 * Bounds for accidents, not for planning: handshakes are what one core can do in all, buffers what 16 tunnels may park, and
 * of time only the turns decide.
 */
const STANDARD: Budget = {
  connections: 50_000,
  handshakesPerSecond: 1_000,
  bufferedBytes: 256 * 1024 * 1024,
  loopShare: 1,
};
const BUDGET = { env: 'CULVERT_BUDGET' } as const;

export function budgetSettings(read: SettingsReader): BudgetSettings {
  return {
    isFair: read.bool({ env: 'CULVERT_FAIR_TURNS' }, true),
    budget: { ...STANDARD, ...changeOf(read) },
    budgetsPath: read.optional({ flag: 'budgets', env: 'CULVERT_BUDGETS' }),
  };
}

function changeOf(read: SettingsReader): Partial<Budget> {
  const text = read.optional(BUDGET);
  if (text === undefined) return {};
  const parsed = parseBudget(text);
  if ('value' in parsed) return parsed.value;
  read.refuse(BUDGET, parsed.problem);
  return {};
}
