/** Handshake failures of node:tls and OpenSSL as one `MeshError` that an operator can read (facts/operations.md §3.5). */
import { MeshError } from '../base/errors.ts';

/** OpenSSL verdicts on a chain (X509_V_ERR_…), as node:tls names them. */
const CHAIN_TEXT: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'peer certificate, or a CA certificate above it, has expired',
  CERT_NOT_YET_VALID: 'peer certificate is not valid yet; compare the clocks',
  UNABLE_TO_GET_ISSUER_CERT: 'peer certificate is not signed by a trusted root (issuer not found)',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'peer certificate is not signed by a trusted root (issuer not found)',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'peer certificate is not signed by a trusted root (no intermediate sent)',
  SELF_SIGNED_CERT_IN_CHAIN: 'peer certificate is signed by a root that is not trusted',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'peer certificate is self-signed',
  CERT_SIGNATURE_FAILURE: 'peer certificate has a wrong signature',
  INVALID_PURPOSE: 'peer certificate does not allow this use (extended key usage)',
  INVALID_CA: 'peer certificate is signed by a certificate that is no CA',
  PATH_LENGTH_EXCEEDED: 'peer certificate chain is longer than its CA allows',
  CERT_CHAIN_TOO_LONG: 'peer certificate chain is too long',
  CERT_REVOKED: 'peer certificate is revoked',
  CERT_UNTRUSTED: 'peer certificate is not trusted',
  CERT_REJECTED: 'peer certificate is rejected',
};

const NO_CERTIFICATE = 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE';
const GONE: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE']);

/** `chainVerdict`: `authorizationError` of the TLS socket, which names the cause when the error itself is only a closed socket. */
export function tlsFailure(error: Error, chainVerdict?: string): MeshError {
  const code = chainVerdict ?? codeOf(error);
  const chainText = CHAIN_TEXT[code];
  if (chainText !== undefined) return failure('CV-PEER-CERT', chainText, error);
  if (chainVerdict !== undefined)
    return failure('CV-PEER-CERT', `peer certificate is refused (${chainVerdict})`, error);
  if (code === NO_CERTIFICATE) return failure('CV-PEER-CERT', 'peer did not present a certificate', error);
  if (GONE.has(code)) return failure('CV-TLS-HANDSHAKE', 'peer closed the connection during the handshake', error);
  return failure('CV-TLS-HANDSHAKE', reasonOf(error), error);
}

export function handshakeTimeout(timeoutMs: number): MeshError {
  const text = `tls handshake error: not finished after ${timeoutMs} ms`;
  return new MeshError('CV-TLS-TIMEOUT', text, { timeoutMs });
}

export function wrongAlpn(): MeshError {
  return new MeshError('CV-TLS-HANDSHAKE', 'tls handshake error: peer did not agree on ALPN h2');
}

function failure(code: 'CV-PEER-CERT' | 'CV-TLS-HANDSHAKE', detail: string, cause: Error): MeshError {
  return new MeshError(code, `tls handshake error: ${detail}`, {}, { cause });
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** OpenSSL's short reason, for example `unsupported protocol`; the message has file names and numbers around it. */
function reasonOf(error: Error): string {
  return 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message;
}
