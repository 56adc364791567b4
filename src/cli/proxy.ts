/** `culvert proxy ztunnel`: the agent, started the way the image of ztunnel is, so that changing the image is all it takes. */
import { Command } from 'commander';
import { runAgent } from './agent.ts';

const HELP = `
Every setting comes from the environment, under the names that ztunnel has; README.md lists those that are honoured,
ignored and refused. What is not set is as in ztunnel: control plane and CA at istiod, pods from istio-cni.

Examples:
  $ culvert proxy ztunnel       (what the chart of ztunnel starts)
  $ PROXY_MODE=dedicated PROXY_WORKLOAD_INFO=shop/web-0/web culvert proxy`;

/** Whatever follows `proxy` is ignored, as there. */
export function proxyCommand(): Command {
  return new Command('proxy')
    .description('the agent with the command line, environment and defaults of ztunnel')
    .argument('[args...]', 'ignored')
    .allowUnknownOption()
    .addHelpText('after', HELP)
    .action((args: readonly string[]) => runAgent({}, { defaults: 'ztunnel', args: ['proxy', ...args] }));
}
