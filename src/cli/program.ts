/** The `culvert` program: all commands, and one place that turns what went wrong into a message and an exit code. */
import { Command, CommanderError } from 'commander';
import { MeshError, messageOf } from '../base/errors.ts';
import { reasonOf } from '../base/reasons.ts';
import { allCommand } from './all.ts';
import { certificatesCommand } from './certificates.ts';
import { connectionsCommand } from './connections.ts';
import { CliError, EXIT_CONFIG, EXIT_FAILURE, EXIT_USAGE } from './exit-codes.ts';
import { explainCommand } from './explain.ts';
import { logCommand } from './log-level.ts';
import { policiesCommand } from './policies.ts';
import { servicesCommand } from './services.ts';
import { statusCommand } from './status.ts';
import type { Terminal } from './terminal.ts';
import { topCommand } from './top.ts';
import { upgradeCommand } from './upgrade.ts';
import { workloadsCommand } from './workloads.ts';

export interface ProgramOptions {
  readonly version: string;
  readonly terminal: Terminal;
  /** Commands that run something (`agent`, `demo`). Loaded when needed: they bring in most of the code. */
  readonly roles: () => Promise<readonly Command[]>;
}

const EXAMPLES = `
Examples:
  $ culvert status                  what this node does
  $ culvert top                     what each workload uses now
  $ culvert connections --refused   what was refused lately
  $ culvert explain CV-POLICY-DENY  what a reason code means

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 the agent cannot be reached, 78 wrong configuration.`;

/** Runs one command line (without node and script) and resolves with its exit code. */
export async function run(argv: readonly string[], options: ProgramOptions): Promise<number> {
  const { terminal } = options;
  try {
    const program = await programOf(options, argv[0]);
    await program.parseAsync([...(isHelpOfNothing(program, argv) ? argv.slice(1) : argv)], { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return usageExit(error);
    terminal.err(`culvert: ${errorText(error)}\n`);
    return exitCodeOf(error);
  }
}

/** `help statsu` is as wrong as `statsu`; commander shows all help instead. */
function isHelpOfNothing({ commands }: Command, [first, name]: readonly string[]): boolean {
  return first === 'help' && name !== undefined && !commands.some((command) => namesOf(command).includes(name));
}

function namesOf(command: Command): readonly string[] {
  return [command.name(), ...command.aliases()];
}

async function programOf({ version, terminal, roles }: ProgramOptions, name: string | undefined): Promise<Command> {
  const program = new Command('culvert')
    .description('a zero-trust tunnel under every pod: the node agent and what an operator asks it')
    .version(version, '-V, --version', 'print the version')
    .addHelpText('after', EXAMPLES);
  const views = [
    statusCommand(terminal),
    workloadsCommand(terminal),
    servicesCommand(terminal),
    policiesCommand(terminal),
    certificatesCommand(terminal),
    connectionsCommand(terminal),
    allCommand(terminal),
    explainCommand(terminal),
    logCommand(terminal),
    topCommand(terminal),
    upgradeCommand(terminal),
    // `ztunnel version` is what people know.
    new Command('version').description('print the version').action(() => terminal.out(`${version}\n`)),
  ];
  const isView = views.some((view) => name !== undefined && namesOf(view).includes(name));
  for (const command of [...(isView ? [] : await roles()), ...views]) program.addCommand(command);
  for (const command of [program, ...program.commands]) {
    command.exitOverride();
    command.showHelpAfterError(`  - see ${command === program ? '' : 'culvert '}${command.name()} --help`);
    command.configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'culvert: ')),
    });
  }
  return program;
}

/** `--help` and `--version` are not errors; everything else that commander refuses is wrong usage. */
function usageExit({ exitCode }: CommanderError): number {
  return exitCode === 0 ? 0 : EXIT_USAGE;
}

/** Nobody foresaw any other error: its stack is the only clue. */
function errorText(error: unknown): string {
  if (error instanceof CliError) return error.message;
  if (error instanceof MeshError) return `${error.code}: ${error.message}\n  - ${reasonOf(error.code).next}`;
  return error instanceof Error ? String(error.stack) : messageOf(error);
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CliError) return error.exitCode;
  return error instanceof MeshError && error.code === 'CV-CONFIG' ? EXIT_CONFIG : EXIT_FAILURE;
}
