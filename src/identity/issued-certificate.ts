/** What a provider answered, checked and turned into TLS material: right identity, our key, a chain to the roots, not expired. */
import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Validity } from '../model/rotation.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import { type CertificateFacts, readCertificate } from '../wire/x509-san.ts';
import type { IssuedCertificate } from './certificate-provider.ts';
import { privateKeyPem, publicKeyDer } from './keys.ts';
import { certificatePems, pemBlocks } from './pem.ts';

/** Material of one identity with what rotation needs to know. */
export interface Held {
  readonly material: TlsMaterial;
  /** Of the leaf, ended early by an intermediate that ends before it. */
  readonly validity: Validity;
  readonly leafSerial: string;
  readonly intermediatesPem: readonly string[];
}

/** `ownKey`: the one that signed the request. Throws `CV-CA` when the answer cannot be used. */
export function adoptIssued(identity: string, issued: IssuedCertificate, ownKey: KeyObject, nowMs: number): Held {
  const chain = issued.chainPem.flatMap((pem) => decode('chain', () => certificatePems(pem)));
  const roots = readableRoots(issued.rootsPem);
  const facts = chain.map((pem) => decode('chain', () => factsOf(pem)));
  const [leaf] = facts;
  const key = issued.keyPem === undefined ? ownKey : privateKeyOf(issued.keyPem);
  if (leaf === undefined) throw unusable('its chain is empty');
  if (!leaf.uriSans.includes(identity)) throw unusable('it names another identity', leaf.uriSans.join(', '));
  if (!publicKeyDer(key).equals(leaf.publicKeyDer)) throw unusable('it is for another key');
  const notAfterMs = Math.min(...facts.map((certificate) => certificate.notAfterMs));
  if (nowMs > notAfterMs) throw unusable('it has expired already; compare the clock of this node with that of the CA');
  if (!isTrusted(chain, roots)) throw unusable('its chain does not end at the roots that came with it');
  const serial = serialOf(leaf.serial, roots);
  return {
    material: { identity, keyPem: privateKeyPem(key), chainPem: chain.join(''), rootsPem: roots, serial, notAfterMs },
    validity: { notBeforeMs: leaf.notBeforeMs, notAfterMs },
    leafSerial: leaf.serial,
    intermediatesPem: chain.slice(1),
  };
}

/** The same certificate with more roots to trust; `undefined` when all of them are trusted already. */
export function withMoreRoots(held: Held, rootsPem: readonly string[]): Held | undefined {
  const { material } = held;
  const all = new Set([...material.rootsPem, ...rootsPem]);
  if (all.size === material.rootsPem.length) return undefined;
  const roots = [...all];
  return { ...held, material: { ...material, rootsPem: roots, serial: serialOf(held.leafSerial, roots) } };
}

/** The same certificate with other roots; `undefined` when it does not lead to any of them. */
export function withRoots(held: Held, rootsPem: readonly string[]): Held | undefined {
  const roots = readableRoots(rootsPem);
  if (!isTrusted(certificatePems(held.material.chainPem), roots)) return undefined;
  const serial = serialOf(held.leafSerial, roots);
  return serial === held.material.serial ? held : { ...held, material: { ...held.material, rootsPem: roots, serial } };
}

/** Each certificate is signed by the next, the last one by a root or itself a root. */
function isTrusted(chain: readonly string[], roots: readonly string[]): boolean {
  const certificates = chain.map((pem) => new X509Certificate(pem));
  const last = certificates.at(-1);
  const links = certificates.slice(0, -1);
  if (!links.every((certificate, i) => isSignedBy(certificate, certificates[i + 1]))) return false;
  return roots.some((pem) => {
    const root = new X509Certificate(pem);
    return last?.fingerprint256 === root.fingerprint256 || isSignedBy(last, root);
  });
}

function isSignedBy(certificate: X509Certificate | undefined, issuer: X509Certificate | undefined): boolean {
  if (certificate === undefined || issuer === undefined) return false;
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/**
 * A root that cannot be read is left out, as the reference does: it can only make us trust less. So is one that another CA
 * has signed: node:tls would not end a chain there. None left is an error.
 */
function readableRoots(rootsPem: readonly string[]): string[] {
  const roots = rootsPem.flatMap((pem) => {
    try {
      return certificatePems(pem).filter(isRoot);
    } catch {
      return [];
    }
  });
  if (roots.length === 0) throw unusable('no readable self-signed root came with it');
  return [...new Set(roots)];
}

function isRoot(pem: string): boolean {
  const certificate = new X509Certificate(pem);
  return certificate.ca && isSignedBy(certificate, certificate);
}

/** Serial of the leaf and a digest of the roots: changes when either does. */
function serialOf(leafSerial: string, roots: readonly string[]): string {
  return `${leafSerial}-${createHash('sha256').update(roots.join('')).digest('hex').slice(0, 16)}`;
}

function factsOf(pem: string): CertificateFacts {
  const [der = new Uint8Array()] = pemBlocks('CERTIFICATE', pem);
  return readCertificate(der);
}

function privateKeyOf(pem: string): KeyObject {
  return decode('key', () => createPrivateKey(pem));
}

function decode<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw unusable(`its ${what} is malformed`, messageOf(error));
  }
}

function unusable(why: string, detail?: string): MeshError {
  const text = `the certificate cannot be used: ${why}`;
  return new MeshError('CV-CA', detail === undefined ? text : `${text} (${detail})`);
}
