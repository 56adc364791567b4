/** Pure reader of a PKCS#10 certification request (RFC 2986 §4). Checks form only; the caller verifies the signature. */
import { MeshError } from '../base/errors.ts';
import { bitStringOctets, DerReader, malformed, oidText, TAG } from './der.ts';
import { readExtensions } from './x509-san.ts';

const COMMON_NAME = '2.5.4.3';
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
/** A SPIFFE request has about 400 bytes, with an RSA-4096 key about 1,700. */
const MAX_REQUEST_BYTES = 16_384;
const MAX_ATTRIBUTES = 16;

export interface CertificateRequestFacts {
  /** What the signature covers, DER. */
  readonly signedDer: Uint8Array;
  readonly signatureAlgorithm: string;
  readonly signature: Uint8Array;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeyDer: Uint8Array;
  /** Of the subject; absent when it names none. At most 64 characters of printable ASCII. */
  readonly commonName?: string;
  readonly uriSans: readonly string[];
}

export function readCertificateRequest(der: Uint8Array): CertificateRequestFacts {
  if (der.length > MAX_REQUEST_BYTES) {
    throw new MeshError('CV-WIRE-TOO-LARGE', 'certificate request over the limit', { size: der.length });
  }
  const outer = new DerReader(der);
  const request = new DerReader(outer.read(TAG.sequence, 'certificate request').content);
  outer.end('certificate request');
  const signed = request.read(TAG.sequence, 'request body');
  const algorithm = new DerReader(request.read(TAG.sequence, 'signature algorithm').content);
  const signature = request.read(TAG.bitString, 'signature');
  request.end('signature');
  return {
    signedDer: signed.whole,
    signatureAlgorithm: oidText(algorithm.read(TAG.oid, 'signature algorithm').content),
    signature: bitStringOctets(signature.content, 'signature'),
    ...readBody(new DerReader(signed.content)),
  };
}

function readBody(body: DerReader): Pick<CertificateRequestFacts, 'publicKeyDer' | 'commonName' | 'uriSans'> {
  const version = body.read(TAG.integer, 'version').content;
  if (version.length !== 1 || version[0] !== 0) throw malformed('request version');
  const subject = body.read(TAG.sequence, 'subject');
  const publicKey = body.read(TAG.sequence, 'public key');
  const attributes = body.readIf(0xa0, 'attributes');
  body.end('attributes');
  return {
    publicKeyDer: publicKey.whole,
    ...readCommonName(new DerReader(subject.content)),
    uriSans: attributes === undefined ? [] : requestedUris(new DerReader(attributes.content)),
  };
}

/** Name ::= SEQUENCE OF SET OF SEQUENCE { type, value } (RFC 5280 §4.1.2.4). Attributes of other types are passed over. */
function readCommonName(names: DerReader): Pick<CertificateRequestFacts, 'commonName'> {
  let commonName: string | undefined;
  for (let count = 1; !names.isAtEnd; count++) {
    if (count > MAX_ATTRIBUTES) throw malformed('too many parts in the subject');
    const parts = new DerReader(names.read(TAG.set, 'part of the subject').content);
    while (!parts.isAtEnd) {
      const part = new DerReader(parts.read(TAG.sequence, 'part of the subject').content);
      const type = oidText(part.read(TAG.oid, 'type of a subject part').content);
      const { tag, content } = part.readAny('value of a subject part');
      part.end('part of the subject');
      if (type !== COMMON_NAME) continue;
      if (commonName !== undefined) throw malformed('two common names');
      commonName = commonNameText(tag, content);
    }
  }
  return commonName === undefined || commonName === '' ? {} : { commonName };
}

/** UTF8String, PrintableString or IA5String; the bound is ub-common-name of RFC 5280 Appendix A. */
function commonNameText(tag: number, content: Uint8Array): string {
  const isText = tag === 0x0c || tag === 0x13 || tag === 0x16;
  const isPlain = content.length <= 64 && content.every((byte) => byte >= 0x20 && byte < 0x7f);
  if (!isText || !isPlain) throw malformed('common name');
  return String.fromCharCode(...content);
}

function requestedUris(attributes: DerReader): readonly string[] {
  let uris: readonly string[] | undefined;
  for (let count = 1; !attributes.isAtEnd; count++) {
    if (count > MAX_ATTRIBUTES) throw malformed('too many attributes');
    const attribute = new DerReader(attributes.read(TAG.sequence, 'attribute').content);
    const oid = oidText(attribute.read(TAG.oid, 'attribute id').content);
    const values = new DerReader(attribute.read(TAG.set, 'attribute values').content);
    attribute.end('attribute');
    if (oid !== EXTENSION_REQUEST) continue;
    if (uris !== undefined) throw malformed('two extension requests');
    uris = readExtensions(values.read(TAG.sequence, 'extension request')).uriSans;
    values.end('extension request');
  }
  return uris ?? [];
}
