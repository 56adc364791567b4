/** What all commands that show something share: where to ask, what to leave out, and how to print. */
import { Command, Option } from 'commander';
import { stringify } from 'yaml';
import { type AdminAddress, DEFAULT_ADMIN, parseAdminAddress } from './admin-client.ts';
import { type Cell, renderTable } from './table.ts';
import { hasColour, type Terminal } from './terminal.ts';

/** `short`: the columns that istioctl prints, no more. */
export type OutputForm = 'table' | 'short' | 'json' | 'yaml';

export interface ViewOptions {
  readonly admin: AdminAddress;
  readonly output: OutputForm;
  readonly namespace?: string;
}

/** Options of a view of `/config_dump`, which may also come from a file. */
export interface DumpViewOptions extends ViewOptions {
  readonly file?: string;
}

export interface Table {
  readonly header: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  readonly whenEmpty: string;
  /** So many columns are those of istioctl; the others are ours. Default: all. */
  readonly shortColumns?: number;
}

/** A command with `--admin` and `--output`. */
export function viewCommand(name: string, description: string, examples: string): Command {
  return new Command(name)
    .description(description)
    .addOption(adminOption())
    .addOption(
      new Option('-o, --output <form>', 'how to print').choices(['table', 'short', 'json', 'yaml']).default('table'),
    )
    .addHelpText('after', `\nExamples:\n${examples}`);
}

/** A view command that can read a saved dump instead of asking an agent. */
export function dumpCommand(name: string, description: string, examples: string): Command {
  return viewCommand(name, description, examples).option(
    '-f, --file <path>',
    'a saved config_dump instead of an agent; - is standard input',
  );
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

/** Lets `--alias` mean `--option`: the name that people know from istioctl. */
export function withAlias(command: Command, alias: string, option: string): Command {
  command.addOption(new Option(`--${alias} <name>`, `the same as --${option}`));
  return command.on(`option:${alias}`, (value: string) => void command.setOptionValue(option, value));
}

/** One value, four ways to print it: the table is made only when it is wanted. */
export function print(terminal: Terminal, form: OutputForm, value: unknown, table: (form: OutputForm) => string): void {
  if (form === 'json') terminal.out(`${JSON.stringify(value, undefined, 2)}\n`);
  else if (form === 'yaml') terminal.out(stringify(value));
  else terminal.out(table(form));
}

export function printTable(terminal: Terminal, form: OutputForm, value: unknown, table: () => Table): void {
  print(terminal, form, value, () => tableText(terminal, table(), form));
}

export function tableText(terminal: Terminal, table: Table, form: OutputForm): string {
  const { header, rows, whenEmpty, shortColumns = header.length } = table;
  if (rows.length === 0) return `${whenEmpty}\n`;
  const columns = form === 'short' ? shortColumns : header.length;
  return renderTable(
    header.slice(0, columns),
    rows.map((row) => row.slice(0, columns)),
    hasColour(terminal),
  );
}
