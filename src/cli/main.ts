#!/usr/bin/env node
/** The `culvert` binary. */
import { run } from './program.ts';
import { processTerminal } from './terminal.ts';
import { VERSION } from './version.ts';

const exitCode = await run(process.argv.slice(2), {
  version: VERSION,
  terminal: processTerminal(),
  roles: async () => {
    const { agentCommand } = await import('./agent.ts');
    const { demoCommand } = await import('./demo.ts');
    const { proxyCommand } = await import('./proxy.ts');
    const { sidecarCommand } = await import('./sidecar.ts');
    return [agentCommand(), sidecarCommand(), proxyCommand(), demoCommand()];
  },
});
// A command may have set its own.
if (exitCode !== 0) process.exitCode = exitCode;
