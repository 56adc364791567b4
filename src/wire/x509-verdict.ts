/** OpenSSL's verdicts on a certificate chain (X509_V_ERR_…, as node:tls names them) in words for an operator. */

const TEXT: Readonly<Record<string, string>> = {
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

/** `undefined` for what is no verdict on a chain. */
export function chainVerdictText(code: string): string | undefined {
  return Object.hasOwn(TEXT, code) ? TEXT[code] : undefined;
}
