/** Pure reader of a certificate revocation list (RFC 5280 §5). Checks form only; the caller verifies the signature. */
import { MeshError } from '../base/errors.ts';
import { bitStringOctets, DerReader, malformed, oidText, TAG } from './der.ts';
import { type Extension, readBoolean, readExtensionList, wholeSequence } from './x509-extensions.ts';
import { readX509Time } from './x509-time.ts';

/** Serials have at most 20 octets (RFC 5280 §4.1.2.2) and one more for the sign. */
const MAX_SERIAL_BYTES = 21;

export interface CrlFacts {
  /** Name of the CA, DER. */
  readonly issuerDer: Uint8Array;
  /** Which key of that CA; absent when the list does not say. */
  readonly authorityKeyId?: Uint8Array;
  readonly thisUpdateMs: number;
  /** When the CA means to publish the next one. Never enforced: an old list still names revoked certificates. */
  readonly nextUpdateMs?: number;
  /** What the signature covers, DER. */
  readonly signedDer: Uint8Array;
  readonly signatureAlgorithm: string;
  readonly signature: Uint8Array;
  /** The entries, unread: a list may have many. */
  readonly entriesDer: Uint8Array;
}

/** Throws `CV-WIRE-MALFORMED`, or `CV-CRL` for a list that must not be used without features we lack. */
export function readCrl(der: Uint8Array): CrlFacts {
  const list = wholeSequence(der, 'revocation list');
  const signed = list.read(TAG.sequence, 'list body');
  const algorithm = list.read(TAG.sequence, 'signature algorithm');
  const signature = bitStringOctets(list.read(TAG.bitString, 'signature').content, 'signature');
  list.end('signature');
  return {
    ...readBody(new DerReader(signed.content), algorithm.whole),
    signedDer: signed.whole,
    signatureAlgorithm: oidText(new DerReader(algorithm.content).read(TAG.oid, 'signature algorithm').content),
    signature,
  };
}

/** Serials of the revoked certificates, upper-case hex as node:crypto prints them. Throws as `readCrl` does. */
export function* revokedSerials({ entriesDer }: CrlFacts): Generator<string, void, void> {
  const entries = new DerReader(entriesDer);
  while (!entries.isAtEnd) {
    const entry = new DerReader(entries.read(TAG.sequence, 'revoked certificate').content);
    const serial = serialHex(entry.read(TAG.integer, 'serial number').content);
    entry.readAny('revocation date');
    if (!entry.isAtEnd) checkEntryExtensions(readExtensionList(entry.read(TAG.sequence, 'entry extensions')));
    entry.end('entry extensions');
    yield serial;
  }
}

function readBody(body: DerReader, outerAlgorithm: Uint8Array) {
  const version = body.readIf(TAG.integer, 'version')?.content;
  if (version !== undefined && (version.length !== 1 || version[0] !== 1)) throw malformed('list version');
  const algorithm = body.read(TAG.sequence, 'signature algorithm');
  // RFC 5280 §5.1.2.2; else an attacker could choose how the signature is read.
  if (!isEqual(algorithm.whole, outerAlgorithm)) throw malformed('two different signature algorithms');
  const issuer = body.read(TAG.sequence, 'issuer');
  const thisUpdate = body.readAny('this update');
  const nextUpdate = body.readIf(TAG.utcTime, 'next update') ?? body.readIf(TAG.generalizedTime, 'next update');
  const entries = body.readIf(TAG.sequence, 'revoked certificates');
  const extensions = body.readIf(0xa0, 'list extensions');
  body.end('list extensions');
  return {
    issuerDer: issuer.whole,
    thisUpdateMs: readX509Time(thisUpdate.tag, thisUpdate.content),
    ...(nextUpdate !== undefined && { nextUpdateMs: readX509Time(nextUpdate.tag, nextUpdate.content) }),
    entriesDer: entries?.content ?? new Uint8Array(),
    ...(extensions !== undefined && readListExtensions(extensions.content)),
  };
}

const CRL_NUMBER = '2.5.29.20';
const REASON_CODE = '2.5.29.21';
const INVALIDITY_DATE = '2.5.29.24';
const DELTA_INDICATOR = '2.5.29.27';
const ISSUING_POINT = '2.5.29.28';
const AUTHORITY_KEY_ID = '2.5.29.35';

function readListExtensions(der: Uint8Array): Pick<CrlFacts, 'authorityKeyId'> {
  const outer = new DerReader(der);
  const byOid = readExtensionList(outer.read(TAG.sequence, 'list extensions'));
  outer.end('list extensions');
  if (byOid.has(DELTA_INDICATOR)) throw unsupported('it is a delta list; publish the complete one');
  refuseUnknown(byOid, new Set([CRL_NUMBER, ISSUING_POINT, AUTHORITY_KEY_ID]));
  const point = byOid.get(ISSUING_POINT)?.value;
  if (point !== undefined) checkIssuingPoint(point);
  const keyId = readAuthorityKeyId(byOid.get(AUTHORITY_KEY_ID)?.value);
  return keyId === undefined ? {} : { authorityKeyId: keyId };
}

/**
 * IssuingDistributionPoint (RFC 5280 §5.2.5) narrows what *absence* from the list means, and absence decides nothing here.
 * What it lists is revoked, unless the list speaks for other CAs, or for attribute certificates.
 */
function checkIssuingPoint(der: Uint8Array): void {
  const point = wholeSequence(der, 'issuing distribution point');
  while (!point.isAtEnd) {
    const { tag, content } = point.readAny('issuing distribution point');
    if (tag === 0x84 && readBoolean(content)) throw unsupported('it is an indirect list; publish one for each CA');
    if (tag === 0x85 && readBoolean(content)) throw unsupported('it lists attribute certificates');
  }
}

/** AuthorityKeyIdentifier: its [0] keyIdentifier (RFC 5280 §4.2.1.1). */
function readAuthorityKeyId(der: Uint8Array | undefined): Uint8Array | undefined {
  if (der === undefined) return undefined;
  return wholeSequence(der, 'authority key id').readIf(0x80, 'key id')?.content;
}

function checkEntryExtensions(byOid: ReadonlyMap<string, Extension>): void {
  refuseUnknown(byOid, new Set([REASON_CODE, INVALIDITY_DATE]));
}

function refuseUnknown(byOid: ReadonlyMap<string, Extension>, known: ReadonlySet<string>): void {
  for (const [oid, { isCritical }] of byOid) {
    if (isCritical && !known.has(oid)) throw unsupported(`it has the critical extension ${oid}`);
  }
}

/** Without the octet that only says "positive", as BN_bn2hex of OpenSSL prints it. */
function serialHex(content: Uint8Array): string {
  const [first, second] = content;
  if (first === undefined || content.length > MAX_SERIAL_BYTES) throw malformed('serial number');
  if (first >= 0x80) throw malformed('serial number is negative');
  const digits = first === 0 && second !== undefined ? content.subarray(1) : content;
  return digits.toHex().toUpperCase();
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function unsupported(why: string): MeshError {
  return new MeshError('CV-CRL', `revocation list cannot be used: ${why}`);
}
