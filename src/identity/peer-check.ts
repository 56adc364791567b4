/** What a verified chain must also prove: key usage, trust domain, identity. Host names play no part. */
import { MeshError } from '../base/errors.ts';
import { parseSpiffeId } from '../model/spiffe.ts';
import { type CertificateFacts, EKU_CLIENT_AUTH, EKU_SERVER_AUTH, readCertificate } from '../wire/x509-san.ts';

/** Longest list of peer names that an error quotes. */
const MAX_NAMES_SHOWN = 5;

/**
 * Identity of a client: its first SPIFFE ID. At least one of its IDs must lie in `trustDomain`, character for character:
 * aliases are not honoured.
 */
export function checkClientCertificate(der: Uint8Array, trustDomain: string | undefined): string | undefined {
  const { uriSans } = readPeer(der, EKU_CLIENT_AUTH);
  const ids = uriSans.filter((uri) => parseSpiffeId(uri) !== undefined);
  // Our own certificate names no trust domain: nobody can be in it.
  const isSame = trustDomain !== undefined && ids.some((uri) => parseSpiffeId(uri)?.trustDomain === trustDomain);
  if (isSame) return ids[0];
  throw new MeshError(
    'CV-PEER-TRUST-DOMAIN',
    `identity verification error: peer did not present the expected trust domain (${trustDomain}), got ${shown(uriSans)}`,
    { peer: shown(uriSans) },
  );
}

/** The expected identity that a server proved. An empty `expected` matches nothing. */
export function checkServerCertificate(der: Uint8Array, expected: readonly string[]): string {
  const { uriSans } = readPeer(der, EKU_SERVER_AUTH);
  const proved = uriSans.find((uri) => expected.includes(uri) && parseSpiffeId(uri) !== undefined);
  if (proved !== undefined) return proved;
  throw new MeshError(
    'CV-PEER-IDENTITY',
    `identity verification error: peer did not present the expected SAN (${expected.join(', ')}), got ${shown(uriSans)}`,
    { peer: shown(uriSans) },
  );
}

function readPeer(der: Uint8Array, purpose: string): CertificateFacts {
  const facts = parsePeer(der);
  if (facts.extendedKeyUsages?.includes(purpose) === false) {
    throw new MeshError('CV-PEER-CERT', 'tls handshake error: peer certificate does not allow this use', { purpose });
  }
  return facts;
}

function parsePeer(der: Uint8Array): CertificateFacts {
  try {
    return readCertificate(der);
  } catch (error) {
    throw new MeshError('CV-PEER-CERT', 'tls handshake error: peer certificate is malformed', {}, { cause: error });
  }
}

function shown(uris: readonly string[]): string {
  if (uris.length === 0) return 'no SAN';
  const names = uris.slice(0, MAX_NAMES_SHOWN).map((uri) => uri.slice(0, 256));
  return uris.length > MAX_NAMES_SHOWN
    ? `${names.join(', ')} and ${uris.length - MAX_NAMES_SHOWN} more`
    : names.join(', ');
}
