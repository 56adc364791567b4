import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import * as asn1 from '../../../src/identity/asn1.ts';
import { signSha256 } from '../../../src/identity/keys.ts';
import { pemBlocks } from '../../../src/identity/pem.ts';
import { readCertificate } from '../../../src/wire/x509-san.ts';
import { meshCa } from '../../support/certs.ts';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const ca = await meshCa();
const { chainPem } = await ca.material(ID);
const [leaf = Buffer.alloc(0)] = pemBlocks('CERTIFICATE', chainPem);

/** A certificate with these extensions and nothing else of interest. */
function certificateWith(...extensions: asn1.Asn1[]): Buffer {
  const body = asn1.sequence(
    asn1.tagged(0, asn1.integer(2)),
    asn1.integer(7),
    asn1.ecdsaSha256(),
    asn1.sequence(),
    asn1.sequence(asn1.time(0), asn1.time(1_000)),
    asn1.sequence(),
    asn1.sequence(),
    asn1.tagged(3, asn1.sequence(...extensions)),
  );
  return asn1.signed(body, (bytes) => signSha256(ca.issuing.keys.privateKey, bytes));
}

function san(...names: asn1.Asn1[]): asn1.Asn1 {
  return asn1.sequence(asn1.oid('2.5.29.17'), asn1.octets(asn1.toDer(asn1.sequence(...names))));
}

const uri = (text: string): asn1.Asn1 => asn1.taggedBytes(6, Buffer.from(text, 'latin1'));

test('a leaf reads as node:crypto reads it', () => {
  const facts = readCertificate(leaf);
  const reference = new X509Certificate(leaf);

  assert.deepEqual(facts.uriSans, [ID]);
  assert.equal(facts.serial, BigInt(`0x${reference.serialNumber}`).toString());
  assert.equal(facts.notBeforeMs, Date.parse(reference.validFrom));
  assert.equal(facts.notAfterMs, Date.parse(reference.validTo));
  assert.deepEqual(facts.extendedKeyUsages, reference.keyUsage);
  assert.equal(facts.isCa, false);
  assert.equal(readCertificate(ca.issuing.der).isCa, true);
  assert(reference.publicKey.export({ type: 'spki', format: 'der' }).equals(facts.publicKeyDer));
});

test('certificates that openssl made are read: RSA, v1, years beyond 2049, several names', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'x509-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'cert.pem');
  const make = (...more: string[]): Buffer => {
    const base = [
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      '/dev/null',
      '-subj',
      '/CN=x',
      '-out',
      file,
    ];
    execFileSync('openssl', [...base, ...more], { stdio: 'ignore' });
    return pemBlocks('CERTIFICATE', readFileSync(file, 'utf8'))[0] ?? Buffer.alloc(0);
  };

  const names = `subjectAltName=DNS:a.example,URI:${ID},IP:10.0.0.1,otherName:1.2.3.4;UTF8:spiffe://evil/ns/a/sa/b,URI:https://b/`;
  const many = readCertificate(make('-days', '20000', '-addext', names));
  assert.deepEqual(many.uriSans, [ID, 'https://b/']);
  assert.equal(new Date(many.notAfterMs).getUTCFullYear() > 2049, true);
  assert.equal(many.extendedKeyUsages, undefined);
});

test('text inside an otherName, a DNS name or an email never becomes a URI', () => {
  const text = Buffer.from(ID);
  const otherName = asn1.tagged(0, asn1.oid('1.2.3.4'), asn1.tagged(0, asn1.utf8(ID)));
  const der = certificateWith(
    san(otherName, asn1.taggedBytes(2, text), asn1.taggedBytes(1, text), uri('spiffe://a/ns/b/sa/c')),
  );

  assert.deepEqual(readCertificate(der).uriSans, ['spiffe://a/ns/b/sa/c']);
});

const hostile: readonly { readonly name: string; readonly der: () => Buffer }[] = [
  { name: 'a NUL inside a URI', der: () => certificateWith(san(uri(`${ID}\0.evil`))) },
  { name: 'a line break inside a URI', der: () => certificateWith(san(uri(`${ID}\nspiffe://x`))) },
  {
    name: 'a URI with bytes beyond ASCII',
    der: () => certificateWith(san(uri('spiffe://cl\xfcster.local/ns/a/sa/b'))),
  },
  { name: 'an empty URI', der: () => certificateWith(san(uri(''))) },
  {
    name: 'a URI longer than a SPIFFE ID may be',
    der: () => certificateWith(san(uri(`spiffe://${'a'.repeat(2048)}`))),
  },
  { name: 'a constructed URI', der: () => certificateWith(san(asn1.tagged(6, asn1.utf8(ID)))) },
  { name: 'a name kind that does not exist', der: () => certificateWith(san(asn1.taggedBytes(9, Buffer.from(ID)))) },
  { name: 'a list of no names', der: () => certificateWith(san()) },
  { name: 'two lists of names', der: () => certificateWith(san(uri(ID)), san(uri('spiffe://evil/ns/a/sa/b'))) },
  { name: '257 names', der: () => certificateWith(san(...Array.from({ length: 257 }, () => uri('a:b')))) },
  { name: 'bytes after the certificate', der: () => Buffer.concat([leaf, Buffer.of(0)]) },
  { name: 'a certificate cut short', der: () => leaf.subarray(0, -1) },
  { name: 'more than 64 KiB', der: () => Buffer.alloc(65_537, 0x30) },
  { name: 'an indefinite length', der: () => Buffer.from('3080', 'hex') },
  { name: 'a length that is not minimal', der: () => Buffer.from('30810130', 'hex') },
  { name: 'a length of 2^32', der: () => Buffer.from('3085010000000000', 'hex') },
  { name: 'nothing', der: () => Buffer.alloc(0) },
];

for (const { name, der } of hostile) {
  test(`a certificate with ${name} is refused`, () => {
    assert.throws(() => readCertificate(der()), isWireError);
  });
}

test('any bytes give facts or a MeshError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => readsOrRefuses(bytes)),
    { numRuns: 2_000 },
  );
});

test('a certificate with any few bytes changed gives facts or a MeshError', () => {
  const change = fc.tuple(fc.nat({ max: leaf.length - 1 }), fc.nat({ max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.nat({ max: leaf.length }), (changes, length) => {
      const bytes = Buffer.from(leaf);
      for (const [at, value] of changes) bytes[at] = value;
      readsOrRefuses(bytes);
      readsOrRefuses(bytes.subarray(0, length));
    }),
    { numRuns: 5_000 },
  );
});

function readsOrRefuses(bytes: Uint8Array): void {
  try {
    readCertificate(bytes);
  } catch (error) {
    assert(isWireError(error), String(error));
  }
}

function isWireError(error: unknown): boolean {
  return error instanceof MeshError && error.code.startsWith('CV-WIRE-');
}
