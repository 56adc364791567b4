#!/usr/bin/env node
/** The `culvert` binary. */
import { Command } from 'commander';
import { agentCommand } from './agent.ts';
import { demoCommand } from './demo.ts';

await new Command('culvert').addCommand(agentCommand()).addCommand(demoCommand()).parseAsync();
