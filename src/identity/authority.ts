/** A CA certificate as revocation needs it: its name, its key, and whether it may sign revocation lists. */
import type { KeyObject, X509Certificate } from 'node:crypto';
import { readCertificate } from '../wire/x509-san.ts';

export interface Authority {
  /** Subject, DER in base64: equal text means equal name. */
  readonly name: string;
  readonly keyId?: Buffer;
  readonly publicKey: KeyObject;
  readonly maySignCrls: boolean;
  /** For messages: `CN=…, O=…`. */
  readonly title: string;
}

/** Throws `CV-WIRE-MALFORMED` when the certificate is not strict DER. */
export function authorityOf(certificate: X509Certificate): Authority {
  const { subjectDer, subjectKeyId, maySignCrls } = readCertificate(certificate.raw);
  return {
    name: Buffer.from(subjectDer).toString('base64'),
    ...(subjectKeyId !== undefined && { keyId: Buffer.from(subjectKeyId) }),
    publicKey: certificate.publicKey,
    maySignCrls,
    // Absent when empty, whatever the type says.
    title: ((certificate.subject as string | undefined) ?? 'a CA without a name').split('\n').toReversed().join(', '),
  };
}
