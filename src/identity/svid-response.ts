/** A message of the X.509-SVID stream as certificates by identity (SPIFFE Workload API §5.2.1). All of it is good or none is. */
import { MeshError } from '../base/errors.ts';
import { parseSpiffeId } from '../model/spiffe.ts';
import { DerReader, TAG } from '../wire/der.ts';
import type { X509SVID, X509SVIDResponse } from '../wire/pb/spiffe_pb.ts';
import type { IssuedCertificate } from './certificate-provider.ts';
import { derToPem } from './pem.ts';

const MAX_SVIDS = 10_000;
/** Of one chain, or of one bundle. */
const MAX_CERTIFICATES = 100;

/**
 * SVIDs that name a workload of a mesh; others are left out. Of two for one identity the first counts, as hints demand.
 * Throws `CV-WORKLOAD-API` when a mandatory field is missing, `CV-WIRE-MALFORMED` when one is no DER.
 */
export function readSvidResponse({ svids }: X509SVIDResponse): ReadonlyMap<string, IssuedCertificate> {
  if (svids.length === 0) throw refused('it has no SVID');
  if (svids.length > MAX_SVIDS) throw refused(`it has more than ${MAX_SVIDS} SVIDs`);
  const byIdentity = new Map<string, IssuedCertificate>();
  for (const svid of svids) {
    const issued = readSvid(svid);
    if (parseSpiffeId(svid.spiffeId) === undefined || byIdentity.has(svid.spiffeId)) continue;
    byIdentity.set(svid.spiffeId, issued);
  }
  return byIdentity;
}

function readSvid({ spiffeId, x509Svid, x509SvidKey, bundle }: X509SVID): IssuedCertificate {
  if (spiffeId === '') throw refused('an SVID without spiffe_id');
  if (x509SvidKey.length === 0) throw refused(`x509_svid_key of ${spiffeId} is empty`);
  return {
    chainPem: certificates(x509Svid, `x509_svid of ${spiffeId}`),
    rootsPem: certificates(bundle, `bundle of ${spiffeId}`),
    keyPem: derToPem('PRIVATE KEY', x509SvidKey),
  };
}

/** Certificates that stand one after the other. */
function certificates(der: Uint8Array, what: string): string[] {
  const reader = new DerReader(der);
  const pems: string[] = [];
  while (!reader.isAtEnd) {
    if (pems.length === MAX_CERTIFICATES) throw refused(`${what} has more than ${MAX_CERTIFICATES} certificates`);
    pems.push(derToPem('CERTIFICATE', reader.read(TAG.sequence, what).whole));
  }
  if (pems.length === 0) throw refused(`${what} is empty`);
  return pems;
}

function refused(why: string): MeshError {
  return new MeshError('CV-WORKLOAD-API', `a response is not used: ${why}`);
}
