/** What the DNS proxy of one pod needs to be told. */
import type { HostPort } from '../base/ip.ts';

export interface ForwardSettings {
  /** In the order of resolv.conf; not empty. */
  readonly nameservers: readonly HostPort[];
  readonly timeoutMs: number;
  readonly attempts: number;
}

export interface DnsProxySettings extends ForwardSettings {
  /** `localhost`: loopback of the families the pod has. */
  readonly listen:
    | { readonly kind: 'localhost'; readonly port: number }
    | { readonly kind: 'address'; readonly address: HostPort };
  /** Queries in progress per pod; over it new ones get SERVFAIL. Each holds one socket per nameserver at most. */
  readonly maxQueries: number;
  /** Clients that ask over TCP, per pod; over it new ones are closed. */
  readonly maxConnections: number;
  readonly connectionIdleMs: number;
}
