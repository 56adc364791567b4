/** TLS contexts of the mesh, one per certificate, made once and used for every handshake. */
import tls from 'node:tls';
import { BoundedMap } from '../base/bounded-map.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import { DEFAULT_TLS_POLICY, type TlsPolicy, tlsOptions } from './tls-policy.ts';

export const ALPN_H2 = 'h2';

/** Contexts of so many identities are kept; a node runs at most a few hundred pods. */
const MAX_IDENTITIES = 1024;

interface Contexts {
  readonly serial: string;
  server?: tls.Server;
  client?: tls.SecureContext;
}

/** Cache of contexts by identity. A new serial replaces the old entry, so rotation applies to the very next handshake. */
export class TlsContexts {
  readonly #byIdentity = new BoundedMap<string, Contexts>(MAX_IDENTITIES);
  readonly #options: tls.SecureContextOptions;

  constructor(policy: TlsPolicy = DEFAULT_TLS_POLICY) {
    this.#options = tlsOptions(policy);
  }

  /** A server that never listens: `acceptTls` hands it connections. Requires a client certificate. */
  server(material: TlsMaterial): tls.Server {
    const entry = this.#entry(material);
    entry.server ??= tls.createServer({
      ...this.#optionsOf(material),
      ALPNProtocols: [ALPN_H2],
      requestCert: true,
      rejectUnauthorized: true,
    });
    return entry.server;
  }

  client(material: TlsMaterial): tls.SecureContext {
    const entry = this.#entry(material);
    entry.client ??= tls.createSecureContext(this.#optionsOf(material));
    return entry.client;
  }

  /** Frees what an identity holds once no pod uses it. */
  drop(identity: string): void {
    this.#byIdentity.delete(identity);
  }

  get size(): number {
    return this.#byIdentity.size;
  }

  #entry({ identity, serial }: TlsMaterial): Contexts {
    const known = this.#byIdentity.get(identity);
    if (known?.serial === serial) return known;
    const entry = { serial };
    this.#byIdentity.set(identity, entry);
    return entry;
  }

  #optionsOf(material: TlsMaterial): tls.SecureContextOptions {
    return { ...this.#options, key: material.keyPem, cert: material.chainPem, ca: [...material.rootsPem] };
  }
}
