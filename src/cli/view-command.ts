/** What all commands that show something share: where to ask, and how to print. */
import { Command, Option } from 'commander';
import { stringify } from 'yaml';
import { type AdminAddress, DEFAULT_ADMIN, parseAdminAddress } from './admin-client.ts';
import { type Cell, renderTable } from './table.ts';
import { hasColour, type Terminal } from './terminal.ts';

export type OutputForm = 'table' | 'json' | 'yaml';

export interface ViewOptions {
  readonly admin: AdminAddress;
  readonly output: OutputForm;
  readonly namespace?: string;
}

/** A command with `--admin` and `--output`. */
export function viewCommand(name: string, description: string, examples: string): Command {
  return new Command(name)
    .description(description)
    .addOption(adminOption())
    .addOption(new Option('-o, --output <form>', 'how to print').choices(['table', 'json', 'yaml']).default('table'))
    .addHelpText('after', `\nExamples:\n${examples}`);
}

export function adminOption(): Option {
  return new Option('--admin <host:port>', 'admin port of the agent')
    .env('CULVERT_ADMIN')
    .argParser(parseAdminAddress)
    .default(parseAdminAddress(DEFAULT_ADMIN), DEFAULT_ADMIN);
}

export function namespaceOption(): Option {
  return new Option('-n, --namespace <name>', 'only this Kubernetes namespace');
}

/** One value, three ways to print it: the table is made only when it is wanted. */
export function print(terminal: Terminal, form: OutputForm, value: unknown, table: () => string): void {
  if (form === 'json') terminal.out(`${JSON.stringify(value, undefined, 2)}\n`);
  else if (form === 'yaml') terminal.out(stringify(value));
  else terminal.out(table());
}

export function tableText(
  terminal: Terminal,
  header: readonly string[],
  rows: readonly (readonly Cell[])[],
  whenEmpty: string,
): string {
  return rows.length === 0 ? `${whenEmpty}\n` : renderTable(header, rows, hasColour(terminal));
}
