/** The HAProxy pair: TCP in, TLS with a client certificate across, TCP out. */
import { CIPHER_SUITE, HOPS, type Peer } from './peers.ts';

/**
 * 64 KiB buffers, four TLS records: a tenth less CPU per GiB than the default of 16 KiB, at no cost per idle connection,
 * because HAProxy gives empty buffers back. One thread, as nginx has one worker and an agent one event loop.
 */
const PREAMBLE = `
global
  nbthread 1
  tune.bufsize 65536
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites ${CIPHER_SUITE}
  ssl-default-server-options ssl-min-ver TLSv1.3
  ssl-default-server-ciphersuites ${CIPHER_SUITE}
defaults
  mode tcp
  maxconn 9000
  backlog 4096
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  option clitcpka
  option srvtcpka
`;

export const HAPROXY: Peer = {
  argv: (configPath) => ['haproxy', '-db', '-f', configPath],
  clientConfig: (setup, certificates) =>
    PREAMBLE +
    HOPS.map(
      (hop) => `
listen plain-${hop.plainPort}
  bind 127.0.0.1:${hop.plainPort}
  server peer ${setup.pods.server.ip}:${hop.tlsPort} ssl crt ${certificates.clientPath} ca-file ${certificates.caPath} verify required verifyhost server
`,
    ).join(''),
  serverConfig: (_setup, certificates) =>
    PREAMBLE +
    HOPS.map(
      (hop) => `
listen tls-${hop.tlsPort}
  bind :${hop.tlsPort} ssl crt ${certificates.serverPath} ca-file ${certificates.caPath} verify required
  server app 127.0.0.1:${hop.appPort}
`,
    ).join(''),
};
