/** What a column of the table is: a way for the client pod's bytes to reach the applications of its server pod. */
import type { Cleanup } from '../cleanup.ts';
import { type Place, run, startDaemon, until } from '../command.ts';
import type { PodPair, Topology } from '../topology.ts';

/** Compared with each other. */
export const COLUMNS = ['direct', 'haproxy', 'nginx', 'culvert'] as const;
/** Culvert in other ways, compared with `culvert`, which has one worker and two nodes, and with each other. */
export const VARIANTS = ['two-workers', 'same-node', 'short-cut'] as const;
export type VariantName = (typeof VARIANTS)[number];
/** `baseline` is Culvert from another checkout, to judge a change in one interleaved run. */
export type ColumnName = (typeof COLUMNS)[number] | VariantName | 'baseline';

export function isVariant(name: ColumnName): name is VariantName {
  return VARIANTS.some((variant) => variant === name);
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Where the client's tools connect. Plain TCP in every column: the proxies are transparent to what they carry. */
export interface Targets {
  readonly http: Address;
  readonly iperf: Address;
}

export interface Running {
  readonly targets: Targets;
  /** Roots of the process trees under test, client side and server side. Empty for `direct`. */
  readonly processIds: readonly number[];
  /** Port that must carry the encrypted traffic on the server pod; undefined where nothing is encrypted. */
  readonly tunnelPort: number | undefined;
  /** Port that must carry nothing there. */
  readonly unusedPort?: number;
  /** Ends the processes in order, so that a CPU profile is written. Without it they are killed at the end. */
  readonly stop?: () => Promise<void>;
}

export interface ColumnSetup {
  readonly cleanup: Cleanup;
  readonly topology: Topology;
  readonly pods: PodPair;
  /** A directory of this column's own: configurations, logs, sockets. */
  readonly directory: string;
}

export const HTTP_PORT = 8080;
export const IPERF_PORT = 5201;

/** One worker, no logs, keep-alive without end; 1 KiB answers come from memory. Not under test, the same everywhere. */
function applicationConfig(directory: string): string {
  return `
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid ${directory}/app.pid;
error_log ${directory}/app-error.log crit;
events { worker_connections 16000; multi_accept on; }
http {
  access_log off;
  server_tokens off;
  client_body_temp_path ${directory}/app-body; proxy_temp_path ${directory}/app-proxy;
  fastcgi_temp_path ${directory}/app-fcgi; uwsgi_temp_path ${directory}/app-uwsgi; scgi_temp_path ${directory}/app-scgi;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  large_client_header_buffers 4 8k;
  server {
    listen ${HTTP_PORT} backlog=4096;
    location / { default_type text/plain; return 200 "${'x'.repeat(1024)}"; }
  }
}
`;
}

export function applicationFiles(directory: string): Readonly<Record<string, string>> {
  return { 'app.conf': applicationConfig(directory) };
}

/** The HTTP server of 1 KiB answers and the iperf3 server, in the server pod. */
export async function startApplications(setup: ColumnSetup): Promise<void> {
  const { cleanup, directory, pods } = setup;
  const place = pods.server;
  const http = startDaemon(cleanup, ['nginx', '-c', `${directory}/app.conf`], {
    place,
    logPath: `${directory}/app.log`,
  });
  const iperf = startDaemon(cleanup, ['iperf3', '-s', '-p', String(IPERF_PORT)], {
    place,
    logPath: `${directory}/iperf.log`,
  });
  await until('the applications', [http, iperf], async () => {
    await expectListening(place, HTTP_PORT);
    await expectListening(place, IPERF_PORT);
  });
}

export async function expectListening(place: Place, port: number): Promise<void> {
  const sockets = await run(['ss', '-Htln', `sport = :${port}`], place);
  if (sockets.trim() === '') throw new Error(`nothing listens on ${port}`);
}
