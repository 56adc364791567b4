import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { checkClientCertificate, checkServerCertificate } from '../../../src/identity/peer-check.ts';
import { EKU_CLIENT_AUTH, EKU_SERVER_AUTH } from '../../../src/wire/x509-san.ts';
import { meshCa } from '../../support/certs.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const ca = await meshCa();

async function certificate(extendedKeyUsages: readonly string[]): Promise<Uint8Array> {
  const { chainPem } = await ca.material(WEB, { extendedKeyUsages });
  return new X509Certificate(chainPem).raw;
}

function codeOf(check: () => unknown): string {
  try {
    check();
    return 'accepted';
  } catch (error) {
    return error instanceof MeshError ? error.code : String(error);
  }
}

test('a certificate serves the uses it names, each or all when it names none, whatever OpenSSL lets pass', async () => {
  for (const { usages, client, server } of [
    { usages: [EKU_CLIENT_AUTH], client: 'accepted', server: 'CV-PEER-CERT' },
    { usages: [EKU_SERVER_AUTH], client: 'CV-PEER-CERT', server: 'accepted' },
    { usages: [EKU_SERVER_AUTH, EKU_CLIENT_AUTH], client: 'accepted', server: 'accepted' },
    { usages: [], client: 'accepted', server: 'accepted' },
  ]) {
    const der = await certificate(usages);
    assert.deepEqual(
      [codeOf(() => checkClientCertificate(der, 'cluster.local')), codeOf(() => checkServerCertificate(der, [WEB]))],
      [client, server],
      usages.join(', '),
    );
  }
});
