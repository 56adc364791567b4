/**
 * Culvert: both pods enrolled, by one agent per node or, on one node, by one agent. The client connects to the server pod's
 * own address. The agents run the shipped command line with access logs off, as the peers have theirs off.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Daemon, run, startDaemon, stopDaemon, until } from '../command.ts';
import type { Pod } from '../topology.ts';
import { type ColumnSetup, HTTP_PORT, IPERF_PORT, type Running, type VariantName } from './column.ts';

const HBONE_PORT = 15_008;
const OUTBOUND_PORT = 15_001;
export const THIS_CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url));

export interface AgentProgram {
  /** Root of the checkout whose agent runs. */
  readonly checkout: string;
  readonly nodeFlags: readonly string[];
  /** Agents of several columns share a node here; each needs ports of its own. */
  readonly portOffset?: number;
  /** Further flags of the command. */
  readonly flags?: readonly string[];
}

type Role = 'client' | 'server';

/** Which agents there are, the one that starts first being first, and whom each enrols. */
type Layout = readonly { readonly name: Role; readonly enrols: readonly Role[] }[];

/** The server's agent first: it makes the CA both share, and a client that finds no peer backs off. */
const TWO_NODES: Layout = [
  { name: 'server', enrols: ['server'] },
  { name: 'client', enrols: ['client'] },
];
const ONE_NODE: Layout = [{ name: 'client', enrols: ['client', 'server'] }];

function portFlags(offset: number): string[] {
  const ports = { admin: 15_000, stats: 15_020, readiness: 15_021 };
  return Object.entries(ports).flatMap(([name, port]) => [`--${name}-port`, String(port + offset)]);
}

/** JSON is YAML: the mesh file needs no writer. */
function meshFile(pods: Readonly<Record<Role, Pod>>, layout: Layout): string {
  const agentOf = (role: Role): string => layout.find(({ enrols }) => enrols.includes(role))?.name ?? role;
  const workload = (role: Role): object => ({
    uid: `bench//Pod/bench/${role}`,
    name: role,
    namespace: 'bench',
    serviceAccount: role,
    workloadIps: [pods[role].ip],
    protocol: 'HBONE',
    node: `bench-${agentOf(role)}`,
    services: {},
  });
  return JSON.stringify({ workloads: [workload('client'), workload('server')], services: [], policies: [] });
}

function podsFile(roles: readonly Role[], pods: Readonly<Record<Role, Pod>>): string {
  const entries = roles.map((role) => {
    const netns = `/var/run/netns/${pods[role].netns}`;
    return { uid: `bench//Pod/bench/${role}`, name: role, namespace: 'bench', serviceAccount: role, netns };
  });
  return JSON.stringify({ pods: entries });
}

function startAgent(setup: ColumnSetup, { name: role, enrols }: Layout[number], program: AgentProgram): Daemon {
  const at = (name: string): string => join(setup.directory, 'agents', name);
  writeFileSync(at(`pods-${role}.yaml`), podsFile(enrols, setup.pods));
  const argv = [
    process.execPath,
    ...program.nodeFlags,
    join(program.checkout, 'dist/cli/main.js'),
    'agent',
    '--node',
    `bench-${role}`,
    '--mesh-file',
    at('mesh.yaml'),
  ];
  argv.push(
    '--pods',
    at(`pods-${role}.yaml`),
    '--ca-dir',
    at('ca'),
    '--run-dir',
    at(`run-${role}`),
    '--log-level',
    'warn',
    ...portFlags(program.portOffset ?? 0),
    ...(program.flags ?? []),
  );
  return startDaemon(setup.cleanup, argv, { place: setup.pods[role].node, logPath: at(`agent-${role}.log`) });
}

/** Once each: agents of other columns run from it already. */
const built = new Set<string>();

/** What is shipped and what the image runs: `dist/`, as new as the sources beside it. */
function build({ checkout }: AgentProgram): void {
  if (built.has(checkout)) return;
  built.add(checkout);
  execFileSync(process.execPath, ['scripts/build.ts'], { cwd: checkout, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** On the nodes of the pods: two, or one and the same. */
export async function startCulvert(setup: ColumnSetup, program: AgentProgram): Promise<Running> {
  build(program);
  const { pods } = setup;
  const host = pods.server.ip;
  const layout = pods.client.node === pods.server.node ? ONE_NODE : TWO_NODES;
  // A directory of their own: agents watch it, and the load generators write their logs next door.
  const folder = join(setup.directory, 'agents');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'mesh.yaml'), meshFile(pods, layout));
  const agents: Daemon[] = [];
  for (const agent of layout) {
    const daemon = startAgent(setup, agent, program);
    agents.push(daemon);
    for (const role of agent.enrols) {
      const listening = ['ss', '-Htln', `sport = :${role === 'server' ? HBONE_PORT : OUTBOUND_PORT}`];
      await until(`the agent of the ${role}`, [daemon], () => run(listening, pods[role]).then(expectSome));
    }
  }
  return {
    targets: { http: { host, port: HTTP_PORT }, iperf: { host, port: IPERF_PORT } },
    processIds: agents.map(({ pid }) => pid),
    tunnelPort: HBONE_PORT,
    stop: async () => {
      await Promise.all(agents.map((agent) => stopDaemon(agent, 15_000)));
    },
  };
}

const SHORT_CUT = ['--same-node-short-cut', 'accept-no-network-policy'];

/** The same agents, started another way. */
export async function startVariant(setup: ColumnSetup, name: VariantName, program: AgentProgram): Promise<Running> {
  switch (name) {
    case 'two-workers':
      return startCulvert(setup, { ...program, portOffset: 200, flags: ['--workers', '2'] });
    case 'same-node':
      return startCulvert(setup, { ...program, portOffset: 300 });
    case 'short-cut': {
      const running = await startCulvert(setup, { ...program, portOffset: 400, flags: SHORT_CUT });
      return { ...running, tunnelPort: undefined, unusedPort: HBONE_PORT };
    }
  }
}

function expectSome(output: string): void {
  if (output.trim() === '') throw new Error('not listening yet');
}
