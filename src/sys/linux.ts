/** `Sys` on Linux. Works in any thread: namespaces are entered and left per thread. */
import { existsSync, readFileSync } from 'node:fs';
import { hasCode, MeshError, messageOf } from '../base/errors.ts';
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
  procNet: (netns, file) => inNetns(netns, () => tryRead(`/proc/thread-self/net/${file}`)) ?? '',
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
  // /proc/sys/net shows the namespace of the reading thread. No file: no IPv6, or no such interface.
  const path = `/proc/sys/net/ipv6/conf/${networkInterface}/disable_ipv6`;
  return inNetns(netns, () => tryRead(path))?.trim() === '0';
}

/** `undefined`: there is no such file. Out of descriptors is no answer, but `CV-SYS`. */
function tryRead(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (hasCode(cause, 'ENOENT')) return undefined;
    throw new MeshError('CV-SYS', messageOf(cause), { path }, { cause });
  }
}
