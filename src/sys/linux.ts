/** `Sys` on Linux. Works in any thread: namespaces are entered and left per thread. */
import { existsSync, readFileSync } from 'node:fs';
import { MeshError } from '../base/errors.ts';
import { netnsFingerprint } from './fingerprint.ts';
import { libc } from './libc.ts';
import { adoptNetns, inNetns, openNetns, scratchNetns } from './netns.ts';
import { addPolicyRoute, policyRouteState, removePolicyRoute } from './policy-routes.ts';
import { closeTcp, ownSocketInodes, tcpSockets } from './sock-diag.ts';
import { isOwnAddress, listenTcp, originalDestination, peerAddress, socketTcp, socketUdp } from './sockets.ts';
import type { Netns, Sys } from './sys.ts';
import { runTool } from './tool.ts';
import { connectUnix, listenUnix } from './unix-socket.ts';

/** Names that Linux itself allows for interfaces, less the two that mean a directory. */
const INTERFACE_NAME = /^(?!\.{1,2}$)[^\s/:]{1,15}$/;

export const linuxSys: Sys = {
  openNetns,
  adoptNetns,
  isMachineNetns,
  scratchNetns,
  listenTcp,
  socketTcp,
  socketUdp,
  originalDestination,
  isOwnAddress,
  peerAddress,
  connectUnix,
  listenUnix,
  close: (fd) => void libc.close(fd),
  runInNetns: (netns, argv, input) => runTool(netns, argv, input),
  policyRouteState,
  addPolicyRoute,
  removePolicyRoute,
  tcpSockets,
  ownSocketInodes,
  closeTcp,
  fingerprint: netnsFingerprint,
  hasIpv6,
};

/** The kernel registers this one for its first namespace only (net/core/sysctl_net_core.c). */
const MACHINE_SYSCTL = '/proc/sys/net/core/netdev_budget';

function isMachineNetns(netns: Netns): boolean {
  return inNetns(netns, () => existsSync(MACHINE_SYSCTL));
}

function hasIpv6(netns: Netns | undefined, networkInterface: string): boolean {
  if (!INTERFACE_NAME.test(networkInterface)) {
    throw new MeshError('CV-SYS', 'not the name of a network interface', { networkInterface });
  }
  // /proc/sys/net shows the namespace of the reading thread.
  return inNetns(netns, () => readDisableIpv6(networkInterface)) === '0';
}

/** `undefined` on a kernel without IPv6, and for an interface that does not exist. */
function readDisableIpv6(networkInterface: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/net/ipv6/conf/${networkInterface}/disable_ipv6`, 'utf8').trim();
  } catch {
    return undefined;
  }
}
