/** Revocation lists built as a CA would, and with every mistake a test wants; nothing in `src/` makes lists. */
import type { KeyObject } from 'node:crypto';
import * as asn1 from '../../src/identity/asn1.ts';
import { signSha256 } from '../../src/identity/keys.ts';
import { derToPem } from '../../src/identity/pem.ts';
import { readCertificate } from '../../src/wire/x509-san.ts';
import type { MeshCa } from './certs.ts';

export interface CrlOptions {
  /** Upper- or lower-case hex. */
  readonly serials?: readonly string[];
  /** Extensions of the list, after the authority key id. */
  readonly extensions?: readonly asn1.Asn1[];
  /** Extensions of each entry. */
  readonly entryExtensions?: readonly asn1.Asn1[];
  readonly nextUpdateMs?: number;
  /** Another key than that of the CA: a forgery. */
  readonly signWith?: KeyObject;
  /** False: the list does not say which key of the CA signed it. */
  readonly hasKeyId?: boolean;
}

export interface CrlIssuer {
  readonly privateKey: KeyObject;
  readonly certificateDer: Uint8Array;
}

/** DER of a list signed by `issuer`. */
export function buildCrl({ privateKey, certificateDer }: CrlIssuer, options: CrlOptions = {}): Buffer {
  const { serials = [], extensions = [], nextUpdateMs = Date.now() + 86_400_000, hasKeyId = true } = options;
  const { subjectDer, subjectKeyId = Buffer.of() } = readCertificate(certificateDer);
  const entries = serials.map((serial) => entry(serial, options.entryExtensions ?? []));
  const keyId = extension('2.5.29.35', false, asn1.sequence(asn1.taggedBytes(0, subjectKeyId)));
  const all = [...(hasKeyId ? [keyId] : []), ...extensions];
  const body = asn1.sequence(
    asn1.integer(1),
    asn1.ecdsaSha256(),
    asn1.parsed(subjectDer),
    asn1.time(Date.now() - 60_000),
    asn1.time(nextUpdateMs),
    ...(entries.length === 0 ? [] : [asn1.sequence(...entries)]),
    ...(all.length === 0 ? [] : [asn1.tagged(0, asn1.sequence(...all))]),
  );
  return asn1.signed(body, (der) => signSha256(options.signWith ?? privateKey, der));
}

export function crlPem(der: Uint8Array): string {
  return derToPem('X509 CRL', der);
}

export function extension(id: string, isCritical: boolean, value: asn1.Asn1): asn1.Asn1 {
  return asn1.sequence(asn1.oid(id), ...(isCritical ? [asn1.boolean(true)] : []), asn1.octets(asn1.toDer(value)));
}

/** The issuing CA of a test mesh as the signer of lists. */
export function issuingOf({ issuing }: MeshCa): CrlIssuer {
  return { privateKey: issuing.keys.privateKey, certificateDer: issuing.der };
}

/** Its root in the same role. */
export function rootOf({ root }: MeshCa): CrlIssuer {
  return { privateKey: root.keys.privateKey, certificateDer: root.der };
}

function entry(serial: string, extensions: readonly asn1.Asn1[]): asn1.Asn1 {
  const bytes = Buffer.from(serial.length % 2 === 0 ? serial : `0${serial}`, 'hex');
  const positive = (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes;
  const parts = [asn1.integerBytes(positive), asn1.time(Date.now() - 60_000)];
  return asn1.sequence(...parts, ...(extensions.length === 0 ? [] : [asn1.sequence(...extensions)]));
}
