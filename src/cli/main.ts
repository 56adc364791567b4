#!/usr/bin/env node
/** The `culvert` binary. */
import { agentCommand } from './agent.ts';
import { demoCommand } from './demo.ts';
import { run } from './program.ts';
import { processTerminal } from './terminal.ts';
import { VERSION } from './version.ts';

const exitCode = await run(process.argv.slice(2), {
  version: VERSION,
  terminal: processTerminal(),
  roles: [agentCommand(), demoCommand()],
});
// A command may have set its own.
if (exitCode !== 0) process.exitCode = exitCode;
