/** Which TLS this mesh speaks: versions, suites and groups, as the operator restricts or widens them. */
import { constants } from 'node:crypto';
import tls from 'node:tls';
import { MeshError } from '../base/errors.ts';

export interface TlsPolicy {
  /** `TLS12_ENABLED`: peers that cannot speak TLS 1.3 are served too, with ECDHE and AES-GCM. */
  readonly isTls12Allowed: boolean;
  /** `COMPLIANCE_POLICY=pqc`: TLS 1.3 with the hybrid group X25519MLKEM768 and nothing else, whatever `isTls12Allowed` says. */
  readonly isPostQuantumOnly: boolean;
}

export const DEFAULT_TLS_POLICY: TlsPolicy = { isTls12Allowed: false, isPostQuantumOnly: false };

const TLS13_SUITES = ['TLS_AES_256_GCM_SHA384', 'TLS_AES_128_GCM_SHA256'];
const TLS12_SUITES = [
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES128-GCM-SHA256',
];
const POST_QUANTUM_GROUP = 'X25519MLKEM768';
const GROUPS = `X25519:P-256:P-384:${POST_QUANTUM_GROUP}`;

/** Options of every TLS context, of the mesh and of the control plane. */
export function tlsOptions({ isTls12Allowed, isPostQuantumOnly }: TlsPolicy): tls.SecureContextOptions {
  const hasTls12 = isTls12Allowed && !isPostQuantumOnly;
  return {
    minVersion: hasTls12 ? 'TLSv1.2' : 'TLSv1.3',
    maxVersion: 'TLSv1.3',
    ciphers: [...TLS13_SUITES, ...(hasTls12 ? TLS12_SUITES : [])].join(':'),
    honorCipherOrder: true,
    ecdhCurve: isPostQuantumOnly ? POST_QUANTUM_GROUP : GROUPS,
    // No resumption: each handshake proves the certificates of now. TLS 1.2 could do it again in the middle, at will.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}

/** Throws `CV-CONFIG` when this build of OpenSSL cannot do what the policy asks for. */
export function requireTlsPolicy(policy: TlsPolicy): void {
  try {
    tls.createSecureContext(tlsOptions(policy));
  } catch (error) {
    const text = `COMPLIANCE_POLICY=pqc needs OpenSSL 3.5 or newer for ${POST_QUANTUM_GROUP}, this is ${process.versions.openssl}`;
    throw new MeshError('CV-CONFIG', text, {}, { cause: error });
  }
}
