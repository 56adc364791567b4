/** ASN.1 values as node-forge trees: the few kinds that certificates and requests are made of, and DER/PEM at the edge. */
import type { asn1 } from 'node-forge';
import forge from 'node-forge/lib/asn1.js';
import { writeX509Time } from '../wire/x509-time.ts';

export type Asn1 = asn1.Asn1;

const UNIVERSAL = 0x00;
const CONTEXT = 0x80;
/** ecdsa-with-SHA256, RFC 5758 §3.2. */
const ECDSA_SHA256 = '1.2.840.10045.4.3.2';

export function sequence(...items: readonly Asn1[]): Asn1 {
  return forge.create(UNIVERSAL, 16, true, [...items]);
}

export function set(...items: readonly Asn1[]): Asn1 {
  return forge.create(UNIVERSAL, 17, true, [...items]);
}

/** `[tag]` around `items`, constructed. */
export function tagged(tag: number, ...items: readonly Asn1[]): Asn1 {
  return forge.create(CONTEXT, tag, true, [...items]);
}

/** `[tag]` IMPLICIT over a primitive value. */
export function taggedBytes(tag: number, bytes: Uint8Array): Asn1 {
  return forge.create(CONTEXT, tag, false, binary(bytes));
}

export function oid(text: string): Asn1 {
  return forge.create(UNIVERSAL, 6, false, forge.oidToDer(text).getBytes());
}

export function boolean(value: boolean): Asn1 {
  return forge.create(UNIVERSAL, 1, false, value ? '\xff' : '\0');
}

/** INTEGER from its big-endian two's complement bytes. */
export function integerBytes(bytes: Uint8Array): Asn1 {
  return forge.create(UNIVERSAL, 2, false, binary(bytes));
}

/** Small non-negative INTEGER, below 128. */
export function integer(value: number): Asn1 {
  return integerBytes(Uint8Array.of(value));
}

export function octets(bytes: Uint8Array): Asn1 {
  return forge.create(UNIVERSAL, 4, false, binary(bytes));
}

/** BIT STRING of whole octets, or with `unusedBits` at the end of the last one. */
export function bits(bytes: Uint8Array, unusedBits = 0): Asn1 {
  return forge.create(UNIVERSAL, 3, false, String.fromCharCode(unusedBits) + binary(bytes));
}

export function utf8(text: string): Asn1 {
  return forge.create(UNIVERSAL, 12, false, binary(Buffer.from(text, 'utf8')));
}

export function time(ms: number): Asn1 {
  const { tag, text } = writeX509Time(ms);
  return forge.create(UNIVERSAL, tag, false, text);
}

/** A value that exists as DER already, for example a public key. */
export function parsed(der: Uint8Array): Asn1 {
  return forge.fromDer(binary(der), { strict: true, decodeBitStrings: false });
}

export function toDer(value: Asn1): Buffer {
  return Buffer.from(forge.toDer(value).getBytes(), 'latin1');
}

/** Body, algorithm and signature: the outer form of both a certificate and a request. `sign` gets the DER of the body. */
export function signed(body: Asn1, sign: (der: Buffer) => Buffer): Buffer {
  return toDer(sequence(body, ecdsaSha256(), bits(sign(toDer(body)))));
}

/** AlgorithmIdentifier without parameters, as RFC 5758 §3.2 demands for ECDSA. */
export function ecdsaSha256(): Asn1 {
  return sequence(oid(ECDSA_SHA256));
}

/** node-forge carries bytes as strings of char codes 0-255. */
function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}
