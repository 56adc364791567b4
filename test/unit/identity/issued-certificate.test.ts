import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { buildCa } from '../../../src/identity/certificate-builder.ts';
import { adoptIssued } from '../../../src/identity/issued-certificate.ts';
import { certificatePems, derToPem } from '../../../src/identity/pem.ts';
import { meshCa } from '../../support/certs.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const MINUTE_MS = 60_000;

test('a certificate is held for as long as its whole chain is valid: it is renewed by the end of an intermediate', async () => {
  const ca = await meshCa();
  const nowMs = Date.now();
  const { chainPem, keyPem } = await ca.material(WEB);
  const [leafPem = ''] = certificatePems(chainPem);
  // The same authority, with a certificate that ends before the leaf does.
  const request = {
    commonName: 'test issuing',
    publicKey: ca.issuing.keys.publicKey,
    notBeforeMs: nowMs - 10 * MINUTE_MS,
    notAfterMs: nowMs + 10 * MINUTE_MS,
    pathLength: 0,
  };
  const brief = derToPem('CERTIFICATE', buildCa(request, ca.root.keys.privateKey, ca.root.der));
  const issued = { chainPem: [leafPem, brief], rootsPem: [ca.rootPem], keyPem };

  const { validity, material } = adoptIssued(WEB, issued, createPrivateKey(keyPem), nowMs);

  const endMs = Date.parse(new X509Certificate(brief).validTo);
  assert(endMs < Date.parse(new X509Certificate(leafPem).validTo));
  assert.deepEqual([validity.notAfterMs, material.notAfterMs], [endMs, endMs]);
});
