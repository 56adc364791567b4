/** The nginx pair: the `stream` module as TCP proxy, TLS with a client certificate across. */
import { existsSync } from 'node:fs';
import type { ColumnSetup } from './column.ts';
import { CIPHER_SUITE, HOPS, type Peer } from './peers.ts';

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

/** 64 KiB buffers as HAProxy has here: 7 % less CPU per GiB than 16 KiB, and less than half of the default of 4 KiB. */
function config(setup: ColumnSetup, side: string, servers: string): string {
  const load = existsSync(STREAM_MODULE) ? `load_module ${STREAM_MODULE};` : '';
  return `
${load}
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid ${setup.directory}/${side}.pid;
error_log ${setup.directory}/${side}-error.log crit;
events { worker_connections 16000; multi_accept on; }
stream {
  tcp_nodelay on;
  proxy_buffer_size 64k;
  proxy_timeout 1h;
  proxy_connect_timeout 10s;
  proxy_socket_keepalive on;
${servers}
}
`;
}

export const NGINX: Peer = {
  argv: (configPath) => ['nginx', '-c', configPath],
  clientConfig: (setup, certificates) =>
    config(
      setup,
      'client',
      HOPS.map(
        (hop) => `
  server {
    listen 127.0.0.1:${hop.plainPort} backlog=4096 so_keepalive=on;
    proxy_pass ${setup.pods.server.ip}:${hop.tlsPort};
    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_conf_command Ciphersuites ${CIPHER_SUITE};
    proxy_ssl_certificate ${certificates.clientPath};
    proxy_ssl_certificate_key ${certificates.clientPath};
    proxy_ssl_trusted_certificate ${certificates.caPath};
    proxy_ssl_verify on;
    proxy_ssl_name server;
  }`,
      ).join(''),
    ),
  serverConfig: (setup, certificates) =>
    config(
      setup,
      'server',
      HOPS.map(
        (hop) => `
  server {
    listen ${hop.tlsPort} ssl backlog=4096 so_keepalive=on;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites ${CIPHER_SUITE};
    ssl_certificate ${certificates.serverPath};
    ssl_certificate_key ${certificates.serverPath};
    ssl_client_certificate ${certificates.caPath};
    ssl_verify_client on;
    proxy_pass 127.0.0.1:${hop.appPort};
  }`,
      ).join(''),
    ),
};
