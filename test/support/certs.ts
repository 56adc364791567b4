/** A mesh CA in memory, and TLS material for any identity under it, for tests and benches. */

import { buildCa, buildLeaf, type LeafRequest } from '../../src/identity/certificate-builder.ts';
import type { KeyPair } from '../../src/identity/keys.ts';
import { generateKeyPair, privateKeyPem } from '../../src/identity/keys.ts';
import { derToPem } from '../../src/identity/pem.ts';
import type { TlsMaterial } from '../../src/model/verdict.ts';
import { readCertificate } from '../../src/wire/x509-san.ts';

const HOUR_MS = 3_600_000;

export interface MeshCa {
  readonly rootPem: string;
  readonly issuingPem: string;
  /** Signer of leaves, for tests that need their own certificates. */
  readonly issuing: { readonly keys: KeyPair; readonly der: Buffer };
  readonly root: { readonly keys: KeyPair; readonly der: Buffer };
  /** Key, chain and roots for `identity`, valid for an hour from two minutes ago unless `overrides` says otherwise. */
  material(identity: string, overrides?: MaterialOverrides): Promise<TlsMaterial>;
}

export interface MaterialOverrides extends Partial<Omit<LeafRequest, 'identity' | 'publicKey'>> {
  /** Default: the root of this CA alone. */
  readonly rootsPem?: readonly string[];
}

/** Two-level CA: root, issuing certificate, leaves. Real wall clock: OpenSSL compares with it. */
export async function meshCa(name = 'test'): Promise<MeshCa> {
  const nowMs = Date.now();
  const validity = { notBeforeMs: nowMs - 24 * HOUR_MS, notAfterMs: nowMs + 240 * HOUR_MS };
  const [rootKeys, keys] = await Promise.all([generateKeyPair(), generateKeyPair()]);
  const rootRequest = { ...validity, commonName: `${name} root`, publicKey: rootKeys.publicKey, pathLength: 1 };
  const rootDer = buildCa(rootRequest, rootKeys.privateKey);
  const issuingRequest = { ...validity, commonName: `${name} issuing`, publicKey: keys.publicKey, pathLength: 0 };
  const der = buildCa(issuingRequest, rootKeys.privateKey, rootDer);
  const rootPem = derToPem('CERTIFICATE', rootDer);
  const issuingPem = derToPem('CERTIFICATE', der);
  return {
    rootPem,
    issuingPem,
    issuing: { keys, der },
    root: { keys: rootKeys, der: rootDer },
    async material(identity, { rootsPem = [rootPem], ...overrides } = {}) {
      const leafKeys = await generateKeyPair();
      const leaf = buildLeaf(
        {
          identity,
          publicKey: leafKeys.publicKey,
          notBeforeMs: Date.now() - 120_000,
          notAfterMs: Date.now() + HOUR_MS,
          ...overrides,
        },
        { privateKey: keys.privateKey, certificateDer: der },
      );
      const { serial, notAfterMs } = readCertificate(leaf);
      const chainPem = derToPem('CERTIFICATE', leaf) + issuingPem;
      return { identity, keyPem: privateKeyPem(leafKeys.privateKey), chainPem, rootsPem, serial, notAfterMs };
    },
  };
}
