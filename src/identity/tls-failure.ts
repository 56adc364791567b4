/** Handshake failures of node:tls and OpenSSL as one `MeshError` that an operator can read. */
import { MeshError } from '../base/errors.ts';
import { chainVerdictText } from '../wire/x509-verdict.ts';

const NO_CERTIFICATE = 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE';
const GONE: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE']);

/** `chainVerdict`: `authorizationError` of the TLS socket, which names the cause when the error itself is only a closed socket. */
export function tlsFailure(error: Error, chainVerdict?: string): MeshError {
  const code = chainVerdict ?? codeOf(error);
  const chainText = chainVerdictText(code);
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
