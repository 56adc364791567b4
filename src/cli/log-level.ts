/** `culvert log`: shows or changes the log filter of a running agent. */
import { Command } from 'commander';
import { LOG_LEVELS, LOG_SCOPES, levelOf } from '../telemetry/log-filter.ts';
import { type AdminAddress, request, unexpected } from './admin-client.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';
import type { Terminal } from './terminal.ts';
import { adminOption } from './view-command.ts';

const PARTS = LOG_SCOPES.join(', ');

const EXAMPLES = `
Examples:
  $ culvert log                        (what is in force)
  $ culvert log debug                  (everything)
  $ culvert log access=debug,info      (one part, and a default for the rest)
  $ culvert log --reset                (as at the start)

Levels: ${LOG_LEVELS.join(', ')}.
Parts: ${PARTS}.`;

interface Options {
  readonly admin: AdminAddress;
  readonly level?: string;
  readonly reset?: true;
}

export function logCommand(terminal: Terminal): Command {
  return new Command('log')
    .alias('o')
    .description('show or change what the agent logs, while it runs')
    .argument('[filter]', 'a level, or part=level (or part:level), separated by commas')
    .addOption(adminOption())
    .option('--level <filter>', 'the same as the argument')
    .option('-r, --reset', 'go back to the filter of the start first')
    .addHelpText('after', EXAMPLES)
    .action(async (argument: string | undefined, options: Options) => {
      if (argument !== undefined && options.level !== undefined) {
        throw new CliError(EXIT_USAGE, 'name the filter once, as an argument or with --level');
      }
      const filter = argument ?? options.level;
      terminal.out(await ask(options, filter));
      for (const part of unknownParts(filter ?? ''))
        terminal.err(`culvert: no part is called ${part}; parts: ${PARTS}\n`);
    });
}

/** Taken, as ztunnel takes them, and without any effect: a slip of the hand. */
function unknownParts(filter: string): readonly string[] {
  const parts = filter.split(',').flatMap((clause) => /^\s*(.+)[=:]\w+\s*$/.exec(clause)?.[1] ?? []);
  return parts.filter((part) => LOG_SCOPES.every((scope) => levelOf(new Map([[part, 'trace']]), scope) === 'off'));
}

async function ask({ admin, reset }: Options, filter: string | undefined): Promise<string> {
  const query = [...(filter === undefined ? [] : [`level=${encodeURIComponent(filter)}`]), ...(reset ? ['reset'] : [])];
  const path = query.length === 0 ? '/logging' : `/logging?${query.join('&')}`;
  const reply = await request(admin, 'POST', path);
  if (reply.status === 400) {
    const problem = reply.text.split('\n', 1)[0] ?? '';
    throw new CliError(EXIT_USAGE, `${problem}\n  - levels: ${LOG_LEVELS.join(', ')}; for one part: part=level`);
  }
  if (reply.status !== 200) throw unexpected(admin, path, reply);
  return reply.text;
}
