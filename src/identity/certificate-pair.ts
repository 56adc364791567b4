/** A certificate, its key and its roots as files of one directory, in the layouts of cert-manager and of Istio. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { MeshError, messageOf } from '../base/errors.ts';
import { parseSpiffeId } from '../model/spiffe.ts';
import { readBounded } from '../sys/files.ts';
import { readCertificate } from '../wire/x509-san.ts';
import type { IssuedCertificate } from './certificate-provider.ts';
import { adoptIssued } from './issued-certificate.ts';
import { privateKeyPem, publicKeyDer } from './keys.ts';
import { certificatePems, pemBlocks } from './pem.ts';

const MAX_FILE_BYTES = 1024 * 1024;

interface Layout {
  /** Leaf first, then intermediates. */
  readonly chain: string;
  readonly key: string;
  /** Every root to trust. */
  readonly roots: string;
}

const LAYOUTS: readonly Layout[] = [
  { chain: 'tls.crt', key: 'tls.key', roots: 'ca.crt' },
  { chain: 'cert-chain.pem', key: 'key.pem', roots: 'root-cert.pem' },
];

export interface CertificatePair {
  /** Mesh identities that the leaf names, one or more. */
  readonly identities: readonly string[];
  readonly issued: IssuedCertificate;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** For messages. */
  readonly chainFile: string;
  readonly keyFile: string;
  /** Others than the owner can read the key. */
  readonly isKeyExposed: boolean;
}

/**
 * What is in `directory` now; `undefined` when there is neither a certificate nor a key. Throws `CV-CERT-FILES`, with the
 * file that is to blame, when something is missing, half-written, expired, or does not fit together.
 */
export function readCertificatePair(directory: string, nowMs: number): CertificatePair | undefined {
  const layout = LAYOUTS.find(({ chain, key }) => [chain, key].some((name) => existsSync(join(directory, name))));
  if (layout === undefined) return undefined;
  const [chainFile, keyFile, rootsFile] = [layout.chain, layout.key, layout.roots].map((name) => join(directory, name));
  return read({ chainFile: chainFile ?? '', keyFile: keyFile ?? '', rootsFile: rootsFile ?? '' }, nowMs);
}

interface Files {
  readonly chainFile: string;
  readonly keyFile: string;
  readonly rootsFile: string;
}

function read({ chainFile, keyFile, rootsFile }: Files, nowMs: number): CertificatePair {
  const chainPem = decode(chainFile, (text) => certificatePems(text));
  const rootsPem = decode(rootsFile, (text) => certificatePems(text));
  const key = decode(keyFile, (text) => createPrivateKey(text));
  const leaf = decode(chainFile, () =>
    readCertificate(pemBlocks('CERTIFICATE', chainPem[0] ?? '')[0] ?? new Uint8Array()),
  );
  if (!publicKeyDer(key).equals(leaf.publicKeyDer)) {
    throw fault(keyFile, `it does not belong to the first certificate in ${chainFile}; both must be of one issuance`);
  }
  const identities = leaf.uriSans.filter((uri) => parseSpiffeId(uri) !== undefined);
  const [identity] = identities;
  if (identity === undefined) {
    throw fault(
      chainFile,
      'it names no mesh identity; it needs a URI SAN spiffe://<trust domain>/ns/<namespace>/sa/<account>',
    );
  }
  const issued = { chainPem, rootsPem, keyPem: privateKeyPem(key) };
  return {
    identities,
    issued,
    ...checked({ chainFile, identity, issued, key }, nowMs),
    chainFile,
    keyFile,
    isKeyExposed: (statSync(keyFile).mode & 0o077) !== 0,
  };
}

interface Candidate {
  readonly chainFile: string;
  readonly identity: string;
  readonly issued: IssuedCertificate;
  readonly key: KeyObject;
}

function checked({ chainFile, identity, issued, key }: Candidate, nowMs: number) {
  try {
    return adoptIssued(identity, issued, key, nowMs).validity;
  } catch (error) {
    throw fault(chainFile, messageOf(error), error);
  }
}

function decode<T>(file: string, parse: (text: string) => T): T {
  try {
    return parse(readBounded(file, MAX_FILE_BYTES).toString('utf8'));
  } catch (error) {
    throw fault(file, messageOf(error), error);
  }
}

export function fault(file: string, why: string, cause?: unknown): MeshError {
  return new MeshError('CV-CERT-FILES', `cannot use ${file}: ${why}`, { file }, { cause });
}
