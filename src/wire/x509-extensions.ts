/** Extensions of certificates, requests and revocation lists (RFC 5280 §4.2, §5.2) as a map, before anyone reads a value. */
import { MeshError } from '../base/errors.ts';
import { type DerElement, DerReader, malformed, oidText, TAG } from './der.ts';

const MAX_EXTENSIONS = 64;

export interface Extension {
  /** Whoever does not understand it must not use what carries it. */
  readonly isCritical: boolean;
  /** DER of the value. */
  readonly value: Uint8Array;
}

/** Extensions ::= SEQUENCE OF Extension, by dotted OID. Throws when empty, too long, or when one appears twice. */
export function readExtensionList(list: DerElement): ReadonlyMap<string, Extension> {
  const byOid = new Map<string, Extension>();
  const reader = new DerReader(list.content);
  while (!reader.isAtEnd) {
    if (byOid.size === MAX_EXTENSIONS) throw tooLarge('number of extensions', byOid.size + 1, MAX_EXTENSIONS);
    const extension = new DerReader(reader.read(TAG.sequence, 'extension').content);
    const oid = oidText(extension.read(TAG.oid, 'extension id').content);
    const critical = extension.readIf(TAG.boolean, 'critical flag');
    const isCritical = critical !== undefined && readBoolean(critical.content);
    const value = extension.read(TAG.octetString, 'extension value').content;
    extension.end('extension');
    // Two verifiers that pick different copies see different identities (RFC 5280 §4.2).
    if (byOid.has(oid)) throw malformed(`extension ${oid} appears twice`);
    byOid.set(oid, { isCritical, value });
  }
  if (byOid.size === 0) throw malformed('empty list of extensions');
  return byOid;
}

/** Reader over a SEQUENCE that is all of `der`. */
export function wholeSequence(der: Uint8Array, what: string): DerReader {
  const outer = new DerReader(der);
  const content = outer.read(TAG.sequence, what).content;
  outer.end(what);
  return new DerReader(content);
}

export function readBoolean(content: Uint8Array): boolean {
  const [value] = content;
  if (content.length !== 1 || (value !== 0 && value !== 0xff)) throw malformed('boolean');
  return value === 0xff;
}

export function tooLarge(what: string, size: number, limit: number): MeshError {
  return new MeshError('CV-WIRE-TOO-LARGE', `${what} over the limit`, { size, limit });
}
