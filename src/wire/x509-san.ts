/** What the mesh reads from an X.509 v3 certificate (RFC 5280 §4.1): URI SANs, validity, serial, EKU. Pure; input is hostile. */
import { bitStringOctets, type DerElement, DerReader, malformed, oidText, TAG, unsignedInteger } from './der.ts';
import { readBoolean, readExtensionList, tooLarge, wholeSequence } from './x509-extensions.ts';
import { readX509Time } from './x509-time.ts';

export const EKU_SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
export const EKU_CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** No certificate we accept is longer, bytes. A TLS record holds 16 KiB; a SPIFFE leaf has about 600 bytes. */
const MAX_CERTIFICATE_BYTES = 65_536;
/** Longest SPIFFE ID (SPIFFE-ID §2.3), bytes. */
const MAX_URI_BYTES = 2048;
const MAX_NAMES = 256;
/** RFC 5280 §4.1.2.2. */
const MAX_SERIAL_BYTES = 20;

export interface CertificateFacts {
  /** Decimal. */
  readonly serial: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** In certificate order. */
  readonly uriSans: readonly string[];
  /** Dotted OIDs; absent when the certificate has no EKU extension, which allows every use. */
  readonly extendedKeyUsages?: readonly string[];
  readonly isCa: boolean;
  /** True without a key usage extension, which allows every use. */
  readonly maySignCrls: boolean;
  readonly subjectKeyId?: Uint8Array;
  /** Name, DER. */
  readonly subjectDer: Uint8Array;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeyDer: Uint8Array;
}

type ExtensionFacts = Pick<CertificateFacts, 'uriSans' | 'extendedKeyUsages' | 'isCa' | 'maySignCrls' | 'subjectKeyId'>;

/** Throws `CV-WIRE-MALFORMED` or `CV-WIRE-TOO-LARGE` for anything that is not exactly one well-formed certificate. */
export function readCertificate(der: Uint8Array): CertificateFacts {
  if (der.length > MAX_CERTIFICATE_BYTES) throw tooLarge('certificate', der.length, MAX_CERTIFICATE_BYTES);
  const outer = new DerReader(der);
  const certificate = new DerReader(outer.read(TAG.sequence, 'certificate').content);
  outer.end('certificate');
  const body = certificate.read(TAG.sequence, 'certificate body');
  certificate.read(TAG.sequence, 'signature algorithm');
  bitStringOctets(certificate.read(TAG.bitString, 'signature').content, 'signature');
  certificate.end('signature');
  return readBody(new DerReader(body.content));
}

function readBody(body: DerReader): CertificateFacts {
  const version = readVersion(body);
  const serial = unsignedInteger(body.read(TAG.integer, 'serial number').content, MAX_SERIAL_BYTES, 'serial number');
  body.read(TAG.sequence, 'signature algorithm');
  body.read(TAG.sequence, 'issuer');
  const validity = new DerReader(body.read(TAG.sequence, 'validity').content);
  const notBefore = validity.readAny('not before');
  const notAfter = validity.readAny('not after');
  validity.end('validity');
  const subject = body.read(TAG.sequence, 'subject');
  const publicKey = body.read(TAG.sequence, 'public key');
  body.readIf(0x81, 'issuer unique id');
  body.readIf(0x82, 'subject unique id');
  const extensions = readTaggedExtensions(body, version);
  body.end('extensions');
  return {
    serial: serial.toString(),
    notBeforeMs: readX509Time(notBefore.tag, notBefore.content),
    notAfterMs: readX509Time(notAfter.tag, notAfter.content),
    subjectDer: subject.whole,
    publicKeyDer: publicKey.whole,
    ...extensions,
  };
}

/** 0 for v1, when the field is absent; v3 is 2. */
function readVersion(body: DerReader): number {
  const tagged = body.readIf(0xa0, 'version');
  if (tagged === undefined) return 0;
  const inner = new DerReader(tagged.content);
  const [version] = inner.read(TAG.integer, 'version').content;
  inner.end('version');
  if (version !== 1 && version !== 2) throw malformed('version');
  return version;
}

function readTaggedExtensions(body: DerReader, version: number): ExtensionFacts {
  const tagged = body.readIf(0xa3, 'extensions');
  if (tagged === undefined) return { uriSans: [], isCa: false, maySignCrls: true };
  if (version !== 2) throw malformed('extensions in a certificate that is not v3');
  const inner = new DerReader(tagged.content);
  const list = inner.read(TAG.sequence, 'extensions');
  inner.end('extensions');
  return readExtensions(list);
}

/** Extensions ::= SEQUENCE OF Extension, of a certificate or of an extension request in a CSR. */
export function readExtensions(list: DerElement): ExtensionFacts {
  const byOid = readExtensionList(list);
  const san = byOid.get('2.5.29.17')?.value;
  const eku = byOid.get('2.5.29.37')?.value;
  const constraints = byOid.get('2.5.29.19')?.value;
  const keyId = byOid.get('2.5.29.14')?.value;
  const keyUsage = byOid.get('2.5.29.15')?.value;
  return {
    uriSans: san === undefined ? [] : readUriNames(san),
    ...(eku !== undefined && { extendedKeyUsages: readKeyPurposes(eku) }),
    ...(keyId !== undefined && { subjectKeyId: readKeyId(keyId) }),
    isCa: constraints !== undefined && readIsCa(constraints),
    maySignCrls: keyUsage === undefined || readMaySignCrls(keyUsage),
  };
}

/** URIs of GeneralNames (RFC 5280 §4.2.1.6). Only the primitive tag [6] is a URI; nothing inside other names can become one. */
function readUriNames(der: Uint8Array): string[] {
  const uris: string[] = [];
  const names = sequenceOf(der, 'subject alternative names');
  for (let count = 1; !names.isAtEnd; count++) {
    if (count > MAX_NAMES) throw tooLarge('number of names', count, MAX_NAMES);
    const name = names.readAny('subject alternative name');
    if (!GENERAL_NAME_TAGS.has(name.tag)) throw malformed(`name with tag 0x${name.tag.toString(16)}`);
    if (name.tag === URI_TAG) uris.push(uriText(name.content));
  }
  return uris;
}

const URI_TAG = 0x86;
/** otherName, x400Address, directoryName and ediPartyName are constructed; the rest primitive. */
const GENERAL_NAME_TAGS: ReadonlySet<number> = new Set([0xa0, 0x81, 0x82, 0xa3, 0xa4, 0xa5, URI_TAG, 0x87, 0x88]);

/** Printable ASCII only: a NUL or a control byte would end or hide part of the identity in someone's log or matcher. */
function uriText(content: Uint8Array): string {
  if (content.length > MAX_URI_BYTES) throw tooLarge('URI name', content.length, MAX_URI_BYTES);
  if (content.length === 0) throw malformed('empty URI name');
  if (content.some((byte) => byte <= 0x20 || byte >= 0x7f))
    throw malformed('URI name with bytes outside printable ASCII');
  return String.fromCharCode(...content);
}

function readKeyPurposes(der: Uint8Array): string[] {
  const purposes: string[] = [];
  const list = sequenceOf(der, 'extended key usage');
  while (!list.isAtEnd) {
    if (purposes.length === MAX_NAMES) throw tooLarge('number of key purposes', MAX_NAMES + 1, MAX_NAMES);
    purposes.push(oidText(list.read(TAG.oid, 'key purpose').content));
  }
  return purposes;
}

function readKeyId(der: Uint8Array): Uint8Array {
  const outer = new DerReader(der);
  const keyId = outer.read(TAG.octetString, 'subject key id').content;
  outer.end('subject key id');
  return keyId;
}

function readIsCa(der: Uint8Array): boolean {
  const constraints = wholeSequence(der, 'basic constraints');
  const isCa = constraints.readIf(TAG.boolean, 'CA flag');
  constraints.readIf(TAG.integer, 'path length');
  constraints.end('basic constraints');
  return isCa !== undefined && readBoolean(isCa.content);
}

/** KeyUsage ::= BIT STRING; cRLSign is bit 6 (RFC 5280 §4.2.1.3). */
function readMaySignCrls(der: Uint8Array): boolean {
  const outer = new DerReader(der);
  const [unused = 8, bits = 0] = outer.read(TAG.bitString, 'key usage').content;
  outer.end('key usage');
  if (unused > 7) throw malformed('key usage');
  return (bits & 0x02) !== 0;
}

/** Reader over a SEQUENCE that holds at least one element and is all of `der`. */
function sequenceOf(der: Uint8Array, what: string): DerReader {
  const list = wholeSequence(der, what);
  if (list.isAtEnd) throw malformed(`empty ${what}`);
  return list;
}
