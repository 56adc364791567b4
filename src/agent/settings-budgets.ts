/** What each workload may use of the agent. */
import type { SettingsReader } from './settings-reader.ts';

export interface BudgetSettings {
  /** Workloads take turns on the event loops. */
  readonly isFair: boolean;
}

export function budgetSettings(read: SettingsReader): BudgetSettings {
  return { isFair: read.bool({ env: 'CULVERT_FAIR_TURNS' }, true) };
}
