/** Certificates as `/config_dump` shows them. Private keys never appear. */
import type { TlsMaterial } from '../model/verdict.ts';
import { readCertificate } from '../wire/x509-san.ts';
import { rfc3339Seconds } from '../wire/x509-time.ts';
import { certificatePems, pemBlocks } from './pem.ts';

interface CertificateSummary {
  /** Base64 of the PEM text. */
  readonly pem: string;
  /** Decimal. */
  readonly serialNumber: string;
  readonly validFrom: string;
  readonly expirationTime: string;
}

export interface IdentitySnapshot {
  readonly identity: string;
  /** `Initializing`, `Available` or `Unavailable: <error>`. */
  readonly state: string;
  /** Leaf first. */
  readonly certChain: readonly CertificateSummary[];
  readonly rootCerts: readonly CertificateSummary[];
}

export function snapshotOf(identity: string, state: string, material: TlsMaterial | undefined): IdentitySnapshot {
  const certChain = material === undefined ? [] : certificatePems(material.chainPem).map(summaryOf);
  const rootCerts = (material?.rootsPem ?? []).map(summaryOf);
  return { identity, state, certChain, rootCerts };
}

function summaryOf(pem: string): CertificateSummary {
  const [der = new Uint8Array()] = pemBlocks('CERTIFICATE', pem);
  const facts = readCertificate(der);
  return {
    pem: Buffer.from(pem).toString('base64'),
    serialNumber: facts.serial,
    validFrom: rfc3339Seconds(facts.notBeforeMs),
    expirationTime: rfc3339Seconds(facts.notAfterMs),
  };
}
