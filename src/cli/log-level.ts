/** `culvert log`: shows or changes the log filter of a running agent. */
import { Command } from 'commander';
import { type AdminAddress, request, unexpected } from './admin-client.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';
import type { Terminal } from './terminal.ts';
import { adminOption } from './view-command.ts';

const EXAMPLES = `
Examples:
  $ culvert log                        (what is in force)
  $ culvert log debug                  (everything)
  $ culvert log access=debug,info      (one part, and a default for the rest)
  $ culvert log --reset                (as at the start)

Levels: off, error, warn, info, debug, trace.
Parts: access, proxy, tunnel, state, rbac, identity, capture, mesh, admin, stats, readiness, agent.`;

export function logCommand(terminal: Terminal): Command {
  return new Command('log')
    .description('show or change what the agent logs, while it runs')
    .argument('[filter]', 'a level, or part=level, separated by commas')
    .addOption(adminOption())
    .option('-r, --reset', 'go back to the filter of the start first')
    .addHelpText('after', EXAMPLES)
    .action(async (filter: string | undefined, options: { admin: AdminAddress; reset?: true }) => {
      const query = [
        ...(filter === undefined ? [] : [`level=${encodeURIComponent(filter)}`]),
        ...(options.reset ? ['reset'] : []),
      ];
      const path = query.length === 0 ? '/logging' : `/logging?${query.join('&')}`;
      const reply = await request(options.admin, 'POST', path);
      if (reply.status === 400) throw new CliError(EXIT_USAGE, reply.text.split('\n', 1)[0] ?? '');
      if (reply.status !== 200) throw unexpected(options.admin, path, reply);
      terminal.out(reply.text);
    });
}
