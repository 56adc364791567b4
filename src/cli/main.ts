/** The `culvert` binary. */
import { Command } from 'commander';
import { agentCommand } from './agent.ts';

await new Command('culvert').addCommand(agentCommand()).parseAsync();
