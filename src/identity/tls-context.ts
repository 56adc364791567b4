/** TLS 1.3 contexts of the mesh (facts/datapath.md §1.2), one per certificate, made once and used for every handshake. */
import { constants } from 'node:crypto';
import tls from 'node:tls';
import type { TlsMaterial } from '../model/verdict.ts';

export const ALPN_H2 = 'h2';

/** Contexts of so many identities are kept; a node runs at most a few hundred pods. The least used goes first. */
const MAX_IDENTITIES = 1024;

const MESH_TLS: tls.SecureContextOptions = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256',
  honorCipherOrder: true,
  ecdhCurve: 'X25519:P-256:P-384:X25519MLKEM768',
  // No resumption: each handshake proves the certificates of now.
  secureOptions: constants.SSL_OP_NO_TICKET,
};

interface Contexts {
  readonly serial: string;
  server?: tls.Server;
  client?: tls.SecureContext;
}

/** Cache of contexts by identity. A new serial replaces the old entry, so rotation applies to the very next handshake. */
export class TlsContexts {
  readonly #byIdentity = new Map<string, Contexts>();

  /** A server that never listens: `acceptTls` hands it connections. Requires a client certificate. */
  server(material: TlsMaterial): tls.Server {
    const entry = this.#entry(material);
    entry.server ??= tls.createServer({
      ...optionsOf(material),
      ALPNProtocols: [ALPN_H2],
      requestCert: true,
      rejectUnauthorized: true,
    });
    return entry.server;
  }

  client(material: TlsMaterial): tls.SecureContext {
    const entry = this.#entry(material);
    entry.client ??= tls.createSecureContext(optionsOf(material));
    return entry.client;
  }

  /** Frees what an identity holds once no pod uses it. */
  drop(identity: string): void {
    this.#byIdentity.delete(identity);
  }

  get size(): number {
    return this.#byIdentity.size;
  }

  #entry(material: TlsMaterial): Contexts {
    const known = this.#byIdentity.get(material.identity);
    const entry = known?.serial === material.serial ? known : { serial: material.serial };
    // Deleting first moves the entry to the end: the first key is always the least recently used.
    this.#byIdentity.delete(material.identity);
    this.#byIdentity.set(material.identity, entry);
    const [oldest] = this.#byIdentity.keys();
    if (this.#byIdentity.size > MAX_IDENTITIES && oldest !== undefined) this.#byIdentity.delete(oldest);
    return entry;
  }
}

function optionsOf(material: TlsMaterial): tls.SecureContextOptions {
  return { ...MESH_TLS, key: material.keyPem, cert: material.chainPem, ca: [...material.rootsPem] };
}
