/** X.509 v3 certificates (RFC 5280), assembled with node-forge and signed by node:crypto: SPIFFE leaves and CA certificates. */
import { createHash, type KeyObject, randomBytes } from 'node:crypto';
import type { Validity } from '../model/rotation.ts';
import { bitStringOctets, DerReader, TAG } from '../wire/der.ts';
import { readCertificate } from '../wire/x509-san.ts';
import type { Asn1 } from './asn1.ts';
import * as der from './asn1.ts';
import { subjectAltName } from './csr.ts';
import { publicKeyDer, signSha256 } from './keys.ts';

/** Clocks of two nodes may differ by this much, milliseconds. */
export const BACKDATE_MS = 120_000;

const COMMON_NAME = '2.5.4.3';
const ORGANIZATION = '2.5.4.10';
const BASIC_CONSTRAINTS = '2.5.29.19';
const KEY_USAGE = '2.5.29.15';
const EXTENDED_KEY_USAGE = '2.5.29.37';
const SUBJECT_KEY_ID = '2.5.29.14';
const AUTHORITY_KEY_ID = '2.5.29.35';
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
/** KeyUsage as BIT STRING bytes and unused bits (RFC 5280 §4.2.1.3). */
const DIGITAL_SIGNATURE = { byte: 0x80, unused: 7 };
/** RFC 8813 §3 forbids the second for elliptic curves; TLS 1.2 key exchange with RSA wants it. */
const DIGITAL_SIGNATURE_AND_KEY_ENCIPHERMENT = { byte: 0xa0, unused: 5 };
const CERT_SIGN_AND_CRL_SIGN = { byte: 0x06, unused: 1 };

/** Who signs: a private key, and the certificate that vouches for it. */
export interface Signer {
  readonly privateKey: KeyObject;
  readonly certificateDer: Uint8Array;
}

export interface LeafRequest extends Validity {
  readonly identity: string;
  readonly publicKey: KeyObject;
  /** Subject; default: none. */
  readonly commonName?: string | undefined;
  /** Default: client and server. */
  readonly extendedKeyUsages?: readonly string[];
}

export interface CaRequest extends Validity {
  readonly commonName: string;
  readonly publicKey: KeyObject;
  /** How many CA certificates may follow below this one. */
  readonly pathLength: number;
}

/** Leaf for one SPIFFE identity, DER. Never outlives its signer: a chain that breaks early looks like an outage. */
export function buildLeaf(request: LeafRequest, signer: Signer): Buffer {
  const { commonName, publicKey } = request;
  const purposes = (request.extendedKeyUsages ?? [SERVER_AUTH, CLIENT_AUTH]).map(der.oid);
  const usage = publicKey.asymmetricKeyType === 'rsa' ? DIGITAL_SIGNATURE_AND_KEY_ENCIPHERMENT : DIGITAL_SIGNATURE;
  const subject = commonName === undefined ? der.sequence() : der.sequence(attribute(COMMON_NAME, commonName));
  return build(request, subject, signer.certificateDer, signer.privateKey, [
    extension(KEY_USAGE, true, keyUsage(usage)),
    ...(purposes.length === 0 ? [] : [extension(EXTENDED_KEY_USAGE, false, der.sequence(...purposes))]),
    extension(BASIC_CONSTRAINTS, true, der.sequence()),
    subjectAltName(request.identity, commonName === undefined),
  ]);
}

/** CA certificate, DER; signed by `privateKey` itself when `signerDer` is absent. */
export function buildCa(request: CaRequest, privateKey: KeyObject, signerDer?: Uint8Array): Buffer {
  const constraints = der.sequence(der.boolean(true), der.integer(request.pathLength));
  return build(request, caName(request.commonName), signerDer, privateKey, [
    extension(BASIC_CONSTRAINTS, true, constraints),
    extension(KEY_USAGE, true, keyUsage(CERT_SIGN_AND_CRL_SIGN)),
  ]);
}

function build(
  request: Validity & { readonly publicKey: KeyObject },
  subject: Asn1,
  signerDer: Uint8Array | undefined,
  privateKey: KeyObject,
  extensions: readonly Asn1[],
): Buffer {
  const spki = publicKeyDer(request.publicKey);
  const authority = signerDer === undefined ? { subject, keyId: keyIdOf(spki) } : authorityOf(signerDer);
  const lastMs = signerDer === undefined ? Infinity : readCertificate(signerDer).notAfterMs;
  const body = der.sequence(
    der.tagged(0, der.integer(2)),
    der.integerBytes(newSerial()),
    der.ecdsaSha256(),
    authority.subject,
    der.sequence(der.time(request.notBeforeMs), der.time(Math.min(request.notAfterMs, lastMs))),
    subject,
    der.parsed(spki),
    der.tagged(3, der.sequence(...extensions, ...keyIds(keyIdOf(spki), authority.keyId))),
  );
  return der.signed(body, (bytes) => signSha256(privateKey, bytes));
}

/** Subject and key id as the signer's own certificate states them: verifiers compare both. */
function authorityOf(signerDer: Uint8Array): { readonly subject: Asn1; readonly keyId: Uint8Array } {
  const signer = readCertificate(signerDer);
  return { subject: der.parsed(signer.subjectDer), keyId: signer.subjectKeyId ?? keyIdOf(signer.publicKeyDer) };
}

/** First 160 bits of SHA-256 over the key bits (RFC 7093 §2, method 1). */
function keyIdOf(spki: Uint8Array): Uint8Array {
  const info = new DerReader(new DerReader(spki).read(TAG.sequence, 'public key').content);
  info.read(TAG.sequence, 'key algorithm');
  const key = bitStringOctets(info.read(TAG.bitString, 'key').content, 'key');
  return createHash('sha256').update(key).digest().subarray(0, 20);
}

function keyIds(own: Uint8Array, authority: Uint8Array): Asn1[] {
  return [
    extension(SUBJECT_KEY_ID, false, der.octets(own)),
    extension(AUTHORITY_KEY_ID, false, der.sequence(der.taggedBytes(0, authority))),
  ];
}

function extension(id: string, isCritical: boolean, value: Asn1): Asn1 {
  const flag = isCritical ? [der.boolean(true)] : [];
  return der.sequence(der.oid(id), ...flag, der.octets(der.toDer(value)));
}

function keyUsage({ byte, unused }: { readonly byte: number; readonly unused: number }): Asn1 {
  return der.bits(Uint8Array.of(byte), unused);
}

function caName(commonName: string): Asn1 {
  return der.sequence(attribute(ORGANIZATION, 'Culvert'), attribute(COMMON_NAME, commonName));
}

function attribute(id: string, text: string): Asn1 {
  return der.set(der.sequence(der.oid(id), der.utf8(text)));
}

/** 128 random bits after a first byte that keeps the number positive and minimal. */
function newSerial(): Buffer {
  return Buffer.concat([Buffer.of(0x01), randomBytes(16)]);
}
