/** Certification requests (PKCS#10, RFC 2986): ours to send, and the CA's reading of others'. */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { MeshError } from '../base/errors.ts';
import { readCertificateRequest } from '../wire/x509-csr.ts';
import { boolean, integer, octets, oid, parsed, sequence, set, signed, tagged, taggedBytes, toDer } from './asn1.ts';
import { type KeyPair, publicKeyDer, signSha256 } from './keys.ts';
import { derToPem, pemBlocks } from './pem.ts';
import { isKnownSignature, isSignedBy } from './signature.ts';

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
const SUBJECT_ALT_NAME = '2.5.29.17';
/** GeneralName ::= uniformResourceIdentifier [6]. */
const URI_NAME = 6;
/** What a CA takes from a request: the key, whose owner signed it, and what is asked for, which proves nothing. */
export interface CertificateRequest {
  readonly publicKey: KeyObject;
  readonly uris: readonly string[];
  readonly commonName?: string;
}

/** PEM request for `identity`: one URI SAN, empty subject. */
export function createCsr(identity: string, keys: KeyPair): string {
  const extensions = sequence(subjectAltName(identity));
  const attributes = tagged(0, sequence(oid(EXTENSION_REQUEST), set(extensions)));
  const body = sequence(integer(0), sequence(), parsed(publicKeyDer(keys.publicKey)), attributes);
  return derToPem(
    'CERTIFICATE REQUEST',
    signed(body, (der) => signSha256(keys.privateKey, der)),
  );
}

/** Extension with one URI; critical unless there is a subject too (RFC 5280 §4.2.1.6). */
export function subjectAltName(uri: string, isCritical = true): ReturnType<typeof sequence> {
  const names = sequence(taggedBytes(URI_NAME, Buffer.from(uri, 'ascii')));
  return sequence(oid(SUBJECT_ALT_NAME), ...(isCritical ? [boolean(true)] : []), octets(toDer(names)));
}

/** Reads a request and checks that its sender holds the key. Throws `CV-WIRE-MALFORMED`, or `CV-CA` when we refuse it. */
export function parseCsr(pem: string): CertificateRequest {
  const [der, ...others] = pemBlocks('CERTIFICATE REQUEST', pem);
  if (der === undefined || others.length > 0) throw refused('more than one request');
  const facts = readCertificateRequest(der);
  const publicKey = strongKey(facts.publicKeyDer);
  if (!isKnownSignature(facts.signatureAlgorithm)) {
    throw refused(`signature algorithm ${facts.signatureAlgorithm} is not accepted`);
  }
  if (!isSignedBy(facts, publicKey)) throw refused('its signature does not verify');
  const { uriSans: uris, commonName } = facts;
  return { publicKey, uris, ...(commonName !== undefined && { commonName }) };
}

function strongKey(spki: Uint8Array): KeyObject {
  const key = decodeKey(spki);
  const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {};
  const isStrongCurve = namedCurve === 'prime256v1' || namedCurve === 'secp384r1';
  const isStrongRsa = key.asymmetricKeyType === 'rsa' && (modulusLength ?? 0) >= 2048;
  if (!isStrongCurve && !isStrongRsa) throw refused('its key is neither P-256, P-384 nor RSA of 2048 bits or more');
  return key;
}

function decodeKey(spki: Uint8Array): KeyObject {
  try {
    return createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  } catch (error) {
    throw new MeshError('CV-WIRE-MALFORMED', 'public key of the certificate request', {}, { cause: error });
  }
}

function refused(why: string): MeshError {
  return new MeshError('CV-CA', `certificate request refused: ${why}`);
}
