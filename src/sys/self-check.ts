/** What the agent needs from its process, its tools and the kernel, checked before anything is touched. */
import { readFileSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import { getOption, IP_TRANSPARENT, SO_MARK } from './sockopt.ts';
import type { Netns, Sys } from './sys.ts';

export interface Finding {
  readonly name: string;
  readonly ok: boolean;
  /** Only for writing redirection rules, which a CNI agent may do in its stead. */
  readonly isForRules?: true;
  /** What the agent cannot do without it. */
  readonly purpose: string;
  readonly cure: string;
  /** What the kernel or the tool said, when not ok. */
  readonly detail?: string;
}

interface Need {
  readonly name: string;
  readonly isForRules?: true;
  readonly purpose: string;
  readonly cure: string;
  /** Needs of which each must be there for this one to be looked at: it would fail for want of them, and name a wrong cure. */
  readonly after: readonly string[];
}

interface Capability extends Omit<Need, 'after'> {
  readonly bit: bigint;
}

const GRANT = 'run as root, or grant it: securityContext.capabilities.add in the DaemonSet';

const CAPABILITIES: readonly Capability[] = [
  {
    name: 'CAP_NET_ADMIN',
    bit: 12n,
    purpose: 'socket marks, redirection rules and policy routes in pods',
    cure: GRANT,
  },
  { name: 'CAP_NET_RAW', bit: 13n, purpose: 'applications see the address of the client pod', cure: GRANT },
  { name: 'CAP_SYS_ADMIN', bit: 21n, purpose: 'entering the network namespaces of pods', cure: GRANT },
];

const NFT: Need = {
  name: 'nft',
  isForRules: true,
  purpose: 'redirection rules in pods',
  cure: 'install the package nftables',
  after: [],
};

const NFT_RULES: Need = {
  name: 'nft rules',
  isForRules: true,
  purpose: 'redirecting connections of pods to the agent, and replies back to it',
  cure: 'the kernel needs nf_tables with NAT, redirect and connection tracking (modules nft_redir, nft_ct, nf_nat)',
  after: ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN', 'nft'],
};

/** One rule of each kind that capture uses. */
const PROBE_RULES = `table inet culvert-probe {
	chain nat { type nat hook output priority -100; meta l4proto tcp meta mark and 0xfff != 0x1 counter redirect to :1; }
	chain mangle { type route hook output priority -150; ct direction reply ct mark 0x1 counter meta mark set ct mark; }
}
`;

const MARK = 0x539;

/** Every need with its state, never just the first that fails: one restart should be enough. */
export async function selfCheck(sys: Sys, processStatus = readStatus()): Promise<readonly Finding[]> {
  const findings = checkCapabilities(processStatus);
  for (const { after, probe, ...need } of PROBES) {
    const isTold = findings.some(({ name, ok }) => !ok && after.includes(name));
    if (!isTold) findings.push(await attempt(need, () => probe(sys)));
  }
  return findings;
}

/** `CapEff` of /proc/<pid>/status, against what the agent needs. */
export function checkCapabilities(processStatus: string): Finding[] {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(processStatus)?.[1] ?? '0'}`);
  return CAPABILITIES.map(({ bit, ...need }) => ({ ...need, ok: ((effective >> bit) & 1n) === 1n }));
}

/** A probe throws what the kernel or the tool said. */
const PROBES: readonly (Need & { readonly probe: (sys: Sys) => void | Promise<void> })[] = [
  { ...NFT, probe: (sys) => runTool(sys, ['nft', '--version']) },
  {
    ...NFT_RULES,
    // In a namespace of its own: nothing of the node is touched.
    probe: async (sys) => {
      using scratch = sys.scratchNetns();
      await runTool(sys, ['nft', '-f', '-'], scratch, PROBE_RULES);
    },
  },
  {
    name: 'sock_diag',
    isForRules: true,
    purpose: 'ending connections that a pod made before it was captured',
    cure: 'the kernel needs sock_diag for TCP (modules inet_diag and tcp_diag)',
    after: ['CAP_SYS_ADMIN'],
    probe: (sys) => {
      using scratch = sys.scratchNetns();
      sys.tcpSockets(scratch);
    },
  },
  {
    name: 'setns',
    purpose: 'making sockets inside pods',
    cure: 'needs CAP_SYS_ADMIN and a seccomp profile that allows setns',
    after: ['CAP_SYS_ADMIN'],
    probe: (sys) => {
      using other = sys.scratchNetns();
      sys.hasIpv6(other, 'lo');
    },
  },
  {
    name: 'SO_MARK',
    purpose: "telling the agent's packets from the application's, so that they are not captured again",
    cure: 'needs CAP_NET_ADMIN',
    after: ['CAP_NET_ADMIN'],
    probe: (sys) => probeListener(sys, { mark: MARK }, (fd) => getOption(fd, SO_MARK) === MARK),
  },
  {
    name: 'IP_TRANSPARENT',
    purpose: 'applications see the address of the client pod',
    cure: 'needs CAP_NET_ADMIN or CAP_NET_RAW',
    after: ['CAP_NET_ADMIN', 'CAP_NET_RAW'],
    probe: (sys) => probeListener(sys, { isTransparent: true }, (fd) => getOption(fd, IP_TRANSPARENT) === 1),
  },
];

function probeListener(
  sys: Sys,
  options: { readonly mark?: number; readonly isTransparent?: boolean },
  holds: (fd: number) => boolean,
): void {
  const { fd } = sys.listenTcp(undefined, { address: '127.0.0.1', port: 0, ...options });
  try {
    if (!holds(fd)) throw new Error('the kernel ignored the option');
  } finally {
    sys.close(fd);
  }
}

async function runTool(sys: Sys, argv: readonly string[], netns?: Netns, input = ''): Promise<void> {
  const { code, stderr } = await sys.runInNetns(netns, argv, input);
  if (code !== 0) throw new Error(`exit code ${code}: ${stderr.trim()}`);
}

async function attempt(need: Omit<Need, 'after'>, probe: () => void | Promise<void>): Promise<Finding> {
  try {
    await probe();
    return { ...need, ok: true };
  } catch (error) {
    return { ...need, ok: false, detail: messageOf(error) };
  }
}

function readStatus(): string {
  return readFileSync('/proc/self/status', 'utf8');
}
