/** Rules in the namespace where the agent itself lives: what must be so before it connects to anywhere. */
import { NodeNetns } from '../capture/netns-claims.ts';
import { createRedirection } from '../capture/redirect.ts';
import { takeGroup } from '../sys/process-group.ts';
import type { Sys } from '../sys/sys.ts';
import { OWN_GID } from './pod-source.ts';
import type { AgentConfig } from './settings/config.ts';

const OWN_NETNS = '/proc/self/ns/net';

/** In dedicated mode with rules of our own; otherwise nothing is to be done. Rejects with `CV-NETNS`, `CV-SYS`, `CV-REDIRECT`. */
export async function prepareOwnNamespace({ podSource }: AgentConfig, sys: Sys): Promise<void> {
  if (podSource.kind !== 'own' || podSource.redirection !== 'own') return;
  using netns = sys.openNetns(OWN_NETNS);
  new NodeNetns(sys, 'own').refuse(netns);
  takeGroup(OWN_GID);
  await createRedirection(sys).track(netns);
}
