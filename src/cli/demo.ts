/** `culvert demo`: a mesh of two nodes on this machine, in network namespaces, shown step by step with evidence. */
import { Command, Option } from 'commander';
import type { Screen } from './demo/report.ts';
import { type DemoOptions, runDemo } from './demo/run.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';
import { keptLabs, removeLab } from './lab/registry.ts';

interface DemoFlags {
  readonly keep?: true;
  readonly clean?: true | string;
  readonly output: 'text' | 'json';
  readonly family: DemoOptions['family'];
}

const EXIT_CLAIM_MISSED = 1;
/** EX_NOPERM of sysexits.h. */
const EXIT_NEEDS_ROOT = 77;

const HELP = `
Exit codes: 0 every claim was observed, ${EXIT_CLAIM_MISSED} one was not, ${EXIT_USAGE} wrong usage, ${EXIT_NEEDS_ROOT} it needs root.`;

export function demoCommand(): Command {
  return new Command('demo')
    .description('show a mesh of two nodes on this machine; needs root for network namespaces')
    .option('--keep', 'leave everything up at the end, and print what to try')
    .option('--clean [lab]', 'remove what --keep left (or that one lab), and end')
    .addOption(
      new Option('--output <form>', 'text as it happens, or json at the end').choices(['text', 'json']).default('text'),
    )
    .addOption(
      new Option('--family <family>', 'addresses of the pods').choices(['ipv4', 'ipv6', 'dual']).default('dual'),
    )
    .addHelpText('after', HELP)
    .action(async (flags: DemoFlags) => {
      process.exitCode = await demo(flags);
    });
}

async function demo(flags: DemoFlags): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('the demo makes network namespaces and needs root: sudo npm run demo\n');
    return EXIT_NEEDS_ROOT;
  }
  if (flags.clean !== undefined) return clean(flags.clean);
  const options: DemoOptions = { family: flags.family, isKept: flags.keep === true };
  const result = await runDemo(options, flags.output === 'json' ? silentScreen : terminalScreen());
  if (flags.output === 'json') process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  return result.isGood ? 0 : EXIT_CLAIM_MISSED;
}

function clean(wanted: true | string): number {
  const kept = keptLabs();
  if (wanted !== true && !kept.includes(wanted)) {
    throw new CliError(EXIT_USAGE, `no lab "${wanted}" was kept; there are: ${kept.join(' ') || 'none'}`);
  }
  const ids = wanted === true ? kept : [wanted];
  for (const id of ids) removeLab(id);
  process.stdout.write(`removed: ${ids.length === 0 ? 'nothing, no lab was kept' : ids.join(' ')}\n`);
  return 0;
}

const silentScreen: Screen = { line: () => {}, hasColour: false };

function terminalScreen(): Screen {
  const hasColour = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '';
  return { line: (text) => void process.stdout.write(`${text}\n`), hasColour };
}
