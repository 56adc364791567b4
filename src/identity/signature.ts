/** Signatures on certificates, requests and revocation lists, verified by node:crypto. */
import { type KeyObject, verify } from 'node:crypto';

/** Digest of each algorithm we accept (RFC 5758, RFC 4055, RFC 8410); SHA-1 and MD5 are not among them. */
const DIGEST_OF: Readonly<Record<string, string | undefined>> = {
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
};
const ED25519 = '1.3.101.112';

export interface Signed {
  readonly signedDer: Uint8Array;
  /** Dotted OID. */
  readonly signatureAlgorithm: string;
  readonly signature: Uint8Array;
}

export function isKnownSignature(algorithm: string): boolean {
  return algorithm === ED25519 || DIGEST_OF[algorithm] !== undefined;
}

/** False for a wrong signature, an algorithm that we do not accept, and a key that does not fit it. */
export function isSignedBy({ signedDer, signatureAlgorithm, signature }: Signed, key: KeyObject): boolean {
  if (!isKnownSignature(signatureAlgorithm)) return false;
  try {
    return verify(DIGEST_OF[signatureAlgorithm], signedDer, key, signature);
  } catch {
    return false;
  }
}
