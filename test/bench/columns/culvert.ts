/**
 * Culvert: one agent per node, both pods enrolled, and the client connects to the server pod's own address. The agents
 * run the shipped command line with access logs off, as the peers have theirs off.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Daemon, run, startDaemon, stopDaemon, until } from '../command.ts';
import type { Pod } from '../topology.ts';
import { type ColumnSetup, HTTP_PORT, IPERF_PORT, type Running } from './column.ts';

const HBONE_PORT = 15_008;
export const THIS_CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url));

export interface AgentProgram {
  /** Root of the checkout whose agent runs. */
  readonly checkout: string;
  readonly nodeFlags: readonly string[];
  /** Two agents may share a node here, one per checkout; each needs ports of its own. */
  readonly portOffset?: number;
}

function portFlags(offset: number): string[] {
  const ports = { admin: 15_000, stats: 15_020, readiness: 15_021 };
  return Object.entries(ports).flatMap(([name, port]) => [`--${name}-port`, String(port + offset)]);
}

type Role = 'client' | 'server';

/** JSON is YAML: the mesh file needs no writer. */
function meshFile(pods: Readonly<Record<Role, Pod>>): string {
  const workload = (role: Role): object => ({
    uid: `bench//Pod/bench/${role}`,
    name: role,
    namespace: 'bench',
    serviceAccount: role,
    workloadIps: [pods[role].ip],
    protocol: 'HBONE',
    node: `bench-${role}`,
    services: {},
  });
  return JSON.stringify({ workloads: [workload('client'), workload('server')], services: [], policies: [] });
}

function podsFile(role: Role, pod: Pod): string {
  const netns = `/var/run/netns/${pod.netns}`;
  const entry = { uid: `bench//Pod/bench/${role}`, name: role, namespace: 'bench', serviceAccount: role, netns };
  return JSON.stringify({ pods: [entry] });
}

function startAgent(setup: ColumnSetup, role: Role, program: AgentProgram): Daemon {
  const at = (name: string): string => join(setup.directory, 'agents', name);
  const pod = setup.pods[role];
  // A directory of their own: agents watch it, and the load generators write their logs next door.
  mkdirSync(at(''), { recursive: true });
  writeFileSync(at('mesh.yaml'), meshFile(setup.pods));
  writeFileSync(at(`pods-${role}.yaml`), podsFile(role, pod));
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
  );
  return startDaemon(setup.cleanup, argv, { place: pod.node, logPath: at(`agent-${role}.log`) });
}

/** What is shipped and what the image runs: `dist/`, as new as the sources beside it. */
function build({ checkout }: AgentProgram): void {
  execFileSync(process.execPath, ['scripts/build.ts'], { cwd: checkout, stdio: ['ignore', 'ignore', 'inherit'] });
}

export async function startCulvert(setup: ColumnSetup, program: AgentProgram): Promise<Running> {
  build(program);
  const host = setup.pods.server.ip;
  // The server's agent first: it makes the CA both share, and a client that finds no peer backs off.
  const server = startAgent(setup, 'server', program);
  await until('the server-side agent', [server], () =>
    run(['ss', '-Htln', `sport = :${HBONE_PORT}`], setup.pods.server).then(expectSome),
  );
  const client = startAgent(setup, 'client', program);
  await until('the client-side agent', [client], () =>
    run(['ss', '-Htln', 'sport = :15001'], setup.pods.client).then(expectSome),
  );
  return {
    targets: { http: { host, port: HTTP_PORT }, iperf: { host, port: IPERF_PORT } },
    processIds: [client.pid, server.pid],
    tunnelPort: HBONE_PORT,
    stop: async () => {
      await Promise.all([client, server].map((agent) => stopDaemon(agent, 15_000)));
    },
  };
}

function expectSome(output: string): void {
  if (output.trim() === '') throw new Error('not listening yet');
}
