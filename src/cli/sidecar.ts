/** `culvert sidecar`: the data path for one pod, from inside its network namespace. No CNI agent, no other pods. */
import { Command } from 'commander';
import { createRedirection } from '../capture/redirect.ts';
import { linuxSys } from '../sys/linux.ts';
import type { Sys } from '../sys/sys.ts';
import { flagsOf, type Options, runAgent, withAgentOptions } from './agent.ts';
import { CliError, EXIT_USAGE } from './exit-codes.ts';

const OWN_NETNS = '/proc/self/ns/net';

const HELP = `
It captures what runs in the same namespace as an agent captures its pods, and talks to agents and other sidecars alike.
Rules that send traffic to it are written by itself, and stay when it stops: connections are refused then, never sent in
clear. What runs in group 1337 is let pass, itself above all. With --redirect none somebody else redirects, and no right is
needed.

Examples:
  $ ip netns exec web culvert sidecar --workload shop/web-0/web --mesh-file mesh.yaml
  $ ip netns exec web culvert sidecar --release      (afterwards the namespace is as it was)`;

export function sidecarCommand(): Command {
  const command = new Command('sidecar')
    .description('serve the one pod in whose network namespace it runs')
    .option('--workload <namespace/name/account>', 'the pod (PROXY_WORKLOAD_INFO)')
    .option('--redirect <who>', 'own: write rules; none: somebody else does (CULVERT_REDIRECT; default own)')
    .option('--release', 'take the rules of a sidecar that stopped out of this namespace, and exit')
    .addHelpText('after', HELP)
    .action(async (options: Options) => {
      if (options['release'] === true) await releaseRules(linuxSys);
      else await runAgent({ ...flagsOf(options), mode: 'dedicated' }, { defaults: 'culvert', args: ['sidecar'] });
    });
  return withAgentOptions(command);
}

export async function releaseRules(sys: Sys): Promise<void> {
  using netns = sys.openNetns(OWN_NETNS);
  if (sys.isMachineNetns(netns)) {
    const whose = 'this is the network namespace of the machine, whose tables of these names belong to its CNI agent';
    throw new CliError(
      EXIT_USAGE,
      `${whose}\n  - run it where the pod is: ip netns exec <name> culvert sidecar --release`,
    );
  }
  await createRedirection(sys).remove(netns);
}
