import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import * as asn1 from '../../../src/identity/asn1.ts';
import { createCsr, parseCsr, subjectAltName } from '../../../src/identity/csr.ts';
import { generateKeyPair, publicKeyDer, signSha256 } from '../../../src/identity/keys.ts';
import { derToPem, pemBlocks } from '../../../src/identity/pem.ts';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const keys = await generateKeyPair();
const csr = createCsr(ID, keys);

test('openssl verifies our request and sees one URI, no subject, P-256 and SHA-256', () => {
  const text = execFileSync('openssl', ['req', '-verify', '-noout', '-text'], {
    input: csr,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'ignore'],
  });

  assert.match(text, /Subject: ?\n/);
  assert.match(text, new RegExp(`Subject Alternative Name: critical\n +URI:${ID}\n`));
  assert.match(text, /ASN1 OID: prime256v1/);
  assert.match(text, /Signature Algorithm: ecdsa-with-SHA256/);
});

test('our request reads back with its key and URI', () => {
  const request = parseCsr(csr);

  assert.deepEqual(request.uris, [ID]);
  assert(publicKeyDer(request.publicKey).equals(publicKeyDer(keys.publicKey)));
});

test('a request that openssl made reads the same', () => {
  const made = execFileSync(
    'openssl',
    [
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      '/dev/null',
      '-subj',
      '/',
      '-addext',
      `subjectAltName=URI:${ID}`,
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );

  assert.deepEqual(parseCsr(made).uris, [ID]);
});

test('a request whose sender does not hold the key is refused', async () => {
  const other = await generateKeyPair();
  const stolen = createCsr(ID, { publicKey: keys.publicKey, privateKey: other.privateKey });

  assert.throws(() => parseCsr(stolen), { code: 'CV-CA', message: /signature does not verify/ });
});

test('a common name is read from any place in the subject, and only plain text of at most 64 characters', () => {
  const subject = (...values: readonly asn1.Asn1[]): string =>
    requestFor(asn1.sequence(...values.map((value) => asn1.set(asn1.sequence(asn1.oid('2.5.4.3'), value)))));
  const organization = asn1.set(asn1.sequence(asn1.oid('2.5.4.10'), asn1.utf8('shop')));
  const cart = asn1.set(asn1.sequence(asn1.oid('2.5.4.3'), asn1.utf8('cart')));

  assert.equal(parseCsr(requestFor(asn1.sequence(organization, cart))).commonName, 'cart');
  assert.equal(parseCsr(subject(asn1.utf8('x'.repeat(64)))).commonName, 'x'.repeat(64));
  assert.equal(parseCsr(subject(asn1.utf8(''))).commonName, undefined);
  assert.equal(parseCsr(csr).commonName, undefined);
  for (const bad of [asn1.utf8('x'.repeat(65)), asn1.utf8('a\nb'), asn1.utf8('ü'), asn1.integer(1)]) {
    assert.throws(() => parseCsr(subject(bad)), { code: 'CV-WIRE-MALFORMED', message: /common name/ });
  }
  assert.throws(() => parseCsr(subject(asn1.utf8('a'), asn1.utf8('b'))), { message: /two common names/ });
});

test('a request for two URIs or for none says so, one with two extension requests is refused', () => {
  const uri = (text: string): asn1.Asn1 => asn1.taggedBytes(6, Buffer.from(text));
  const names = asn1.octets(asn1.toDer(asn1.sequence(uri(ID), uri('spiffe://a/ns/b/sa/c'))));
  const two = asn1.sequence(asn1.sequence(asn1.oid('2.5.29.17'), names));
  const attribute = (extensions: asn1.Asn1): asn1.Asn1 =>
    asn1.sequence(asn1.oid('1.2.840.113549.1.9.14'), asn1.set(extensions));
  const one = asn1.sequence(subjectAltName(ID));

  assert.deepEqual(parseCsr(requestWith(attribute(two))).uris, [ID, 'spiffe://a/ns/b/sa/c']);
  assert.deepEqual(parseCsr(requestWith()).uris, []);
  assert.throws(() => parseCsr(requestWith(attribute(one), attribute(one))), { code: 'CV-WIRE-MALFORMED' });
});

test('any change of a request gives a request or a MeshError', () => {
  const [der = Buffer.alloc(0)] = pemBlocks('CERTIFICATE REQUEST', csr);
  fc.assert(
    fc.property(fc.nat({ max: der.length - 1 }), fc.nat({ max: 255 }), (at, value) => {
      const bytes = Buffer.from(der);
      bytes[at] = value;
      try {
        parseCsr(derToPem('CERTIFICATE REQUEST', bytes));
      } catch (error) {
        assert(error instanceof MeshError, String(error));
      }
    }),
    { numRuns: 1_000 },
  );
});

function requestWith(...attributes: asn1.Asn1[]): string {
  return requestFor(asn1.sequence(), ...attributes);
}

function requestFor(subject: asn1.Asn1, ...attributes: asn1.Asn1[]): string {
  const spki = asn1.parsed(publicKeyDer(keys.publicKey));
  const body = asn1.sequence(asn1.integer(0), subject, spki, asn1.tagged(0, ...attributes));
  return derToPem(
    'CERTIFICATE REQUEST',
    asn1.signed(body, (bytes) => signSha256(keys.privateKey, bytes)),
  );
}
