import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import * as asn1 from '../../../src/identity/asn1.ts';
import { type CrlFacts, readCrl, revokedSerials } from '../../../src/wire/x509-crl.ts';
import { readCertificate } from '../../../src/wire/x509-san.ts';
import { meshCa } from '../../support/certs.ts';
import { buildCrl, type CrlOptions, extension, issuingOf } from '../../support/crl.ts';

const ca = await meshCa();
const issuer = issuingOf(ca);
const build = (options: CrlOptions): Buffer => buildCrl(issuer, options);

/** What a list says, its entries included. */
function read(der: Uint8Array): CrlFacts & { readonly serials: readonly string[] } {
  const facts = readCrl(der);
  return { ...facts, serials: [...revokedSerials(facts)] };
}

const flag = (tag: number): asn1.Asn1 => asn1.taggedBytes(tag, Uint8Array.of(0xff));
const point = (...fields: asn1.Asn1[]): asn1.Asn1 => extension('2.5.29.28', true, asn1.sequence(...fields));

test('a list reads with its issuer, key, times, and serials as node:crypto prints them', () => {
  const nextUpdateMs = Date.UTC(2031, 4, 6, 7, 8, 9);
  const list = read(build({ serials: ['01ab', 'f0ff', '7f'], nextUpdateMs }));

  const { subjectDer, subjectKeyId } = readCertificate(ca.issuing.der);
  assert.deepEqual(list.serials, ['01AB', 'F0FF', '7F']);
  assert.deepEqual(list.issuerDer, subjectDer);
  assert.deepEqual(list.authorityKeyId, subjectKeyId);
  assert.equal(list.nextUpdateMs, nextUpdateMs);
  assert.equal(list.signatureAlgorithm, '1.2.840.10045.4.3.2');
});

test('a list without entries and without extensions revokes nothing', () => {
  const list = read(build({ hasKeyId: false }));
  assert.deepEqual([list.serials, list.authorityKeyId], [[], undefined]);
});

test('reasons, invalidity dates, numbers and distribution points of complete lists do not matter', () => {
  const reason = extension('2.5.29.21', false, asn1.parsed(Uint8Array.of(0x0a, 1, 1)));
  const unknown = extension('1.3.6.1.4.1.99999.1', false, asn1.integer(1));
  const extensions = [extension('2.5.29.20', false, asn1.integer(7)), point(flag(1)), unknown];
  assert.deepEqual(read(build({ serials: ['05'], extensions, entryExtensions: [reason, unknown] })).serials, ['05']);
});

const refused: readonly { readonly name: string; readonly options: CrlOptions; readonly why: RegExp }[] = [
  {
    name: 'a delta list',
    options: { extensions: [extension('2.5.29.27', true, asn1.integer(1))] },
    why: /delta list/,
  },
  { name: 'an indirect list', options: { extensions: [point(flag(4))] }, why: /indirect list/ },
  {
    name: 'a list of attribute certificates',
    options: { extensions: [point(flag(5))] },
    why: /attribute certificates/,
  },
  {
    name: 'a list with a critical extension we do not know',
    options: { extensions: [extension('1.2.3.4', true, asn1.integer(1))] },
    why: /critical extension 1\.2\.3\.4/,
  },
  {
    name: 'an entry of another CA',
    options: { serials: ['05'], entryExtensions: [extension('2.5.29.29', true, asn1.sequence())] },
    why: /critical extension 2\.5\.29\.29/,
  },
];
for (const { name, options, why } of refused) {
  test(`${name} is refused whole`, () => {
    assert.throws(() => read(build(options)), { name: 'MeshError', code: 'CV-CRL', message: why });
  });
}

test('a list whose two signature algorithms differ is refused', () => {
  const der = build({});
  const oidOf = (digest: number): Buffer => Buffer.from([0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, digest]);
  const at = der.lastIndexOf(oidOf(2));
  oidOf(3).copy(der, at);
  assert.throws(() => read(der), { code: 'CV-WIRE-MALFORMED', message: /two different signature algorithms/ });
});

test('any change of any byte gives a list or a MeshError, never another error or a hang', () => {
  const der = build({ serials: ['01', '02', 'ffff'], extensions: [point(flag(1))] });
  fc.assert(
    fc.property(fc.nat(der.length - 1), fc.nat(255), fc.nat(der.length), (at, value, cut) => {
      const bytes = Buffer.from(der.subarray(0, cut > at ? cut : der.length));
      bytes[at] = value;
      try {
        read(bytes);
      } catch (error) {
        assert(error instanceof MeshError, String(error));
      }
    }),
    { numRuns: 2_000 },
  );
});
