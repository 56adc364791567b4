/**
 * What HAProxy and nginx have in common here. Each runs as a pair, one process in the client pod and one in the server
 * pod, so that their packets take the same path as Culvert's, whose sockets are made in those namespaces too.
 *
 * Equal terms: mutual TLS 1.3 with one suite, ECDSA P-256 with X25519 key agreement, certificate checks on both sides, one worker or
 * thread each, TCP_NODELAY, TCP keep-alive, no logs. TLS session resumption stays at the default of each product: it is
 * what an operator gets, and it can only flatter the peers (Culvert does not resume).
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PeerCertificates } from '../certificates.ts';
import { startDaemon, until } from '../command.ts';
import { type ColumnSetup, expectListening, HTTP_PORT, IPERF_PORT, type Running } from './column.ts';

/** What Node (OpenSSL) and therefore Culvert agree on by default. */
export const CIPHER_SUITE = 'TLS_AES_256_GCM_SHA384';

/** Plain port on the client's loopback, TLS port on the server pod, application port on the server's loopback. */
export interface Hop {
  readonly plainPort: number;
  readonly tlsPort: number;
  readonly appPort: number;
}

const HTTP_HOP: Hop = { plainPort: 7001, tlsPort: 7443, appPort: HTTP_PORT };
const IPERF_HOP: Hop = { plainPort: 7002, tlsPort: 7444, appPort: IPERF_PORT };
export const HOPS = [HTTP_HOP, IPERF_HOP] as const;

export interface Peer {
  readonly argv: (configPath: string) => readonly string[];
  readonly clientConfig: (setup: ColumnSetup, certificates: PeerCertificates) => string;
  readonly serverConfig: (setup: ColumnSetup, certificates: PeerCertificates) => string;
}

export async function startPeer(setup: ColumnSetup, certificates: PeerCertificates, peer: Peer): Promise<Running> {
  const { cleanup, directory, pods } = setup;
  const start = (side: 'client' | 'server', text: string): ReturnType<typeof startDaemon> => {
    const configPath = join(directory, `${side}.conf`);
    writeFileSync(configPath, text);
    return startDaemon(cleanup, peer.argv(configPath), { place: pods[side], logPath: join(directory, `${side}.log`) });
  };
  const server = start('server', peer.serverConfig(setup, certificates));
  const client = start('client', peer.clientConfig(setup, certificates));
  await until('the proxy pair', [server, client], async () => {
    for (const hop of HOPS) await expectListening(pods.server, hop.tlsPort);
    for (const hop of HOPS) await expectListening(pods.client, hop.plainPort);
  });
  return {
    targets: {
      http: { host: '127.0.0.1', port: HTTP_HOP.plainPort },
      iperf: { host: '127.0.0.1', port: IPERF_HOP.plainPort },
    },
    processIds: [client.pid, server.pid],
    tunnelPort: HTTP_HOP.tlsPort,
  };
}
