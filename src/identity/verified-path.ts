/** Which certificates stand above a peer's: found by signatures, because a peer may send any others along. */
import { X509Certificate } from 'node:crypto';
import { MeshError } from '../base/errors.ts';
import { type Authority, authorityOf } from './authority.ts';

/** A certificate of the path, by what a revocation list says of it: who signed it, and its serial there. */
export interface PathLink {
  readonly issuer: Authority;
  /** Upper-case hex. */
  readonly serial: string;
}

/** Certificates of one peer that are looked at. OpenSSL takes 100 KB of them; a mesh has two or three. */
const MAX_PRESENTED = 16;
/** Pairs of CA certificates whose signature was verified, and root sets that were parsed; over it all are forgotten. */
const MAX_REMEMBERED = 1024;

/** Finds paths. Verified signatures between CA certificates are remembered: only that of the leaf is new each time. */
export class PathFinder {
  readonly #authorities = new Map<string, Authority>();
  readonly #roots = new Map<string, X509Certificate>();
  readonly #signed = new Map<string, boolean>();

  /**
   * Every link from `leaf` up to `rootsPem`, through what the peer presented with it (`issuerCertificate` of node:crypto is
   * the next one in the order sent). When several ways lead up, links of all: revocation on any of them counts. The trust
   * anchors themselves are not links. Throws `CV-PEER-CERT` when no way reaches a root.
   */
  links(leaf: X509Certificate, rootsPem: readonly string[]): readonly PathLink[] {
    const roots = rootsPem.map((pem) => this.#root(pem));
    const anchors = new Set(roots.map((root) => root.fingerprint256));
    const candidates = [...presentedWith(leaf), ...roots];
    const links: PathLink[] = [];
    const seen = new Set<string>();
    const open = [leaf];
    for (let certificate = open.pop(); certificate !== undefined; certificate = open.pop()) {
      if (seen.has(certificate.fingerprint256)) continue;
      seen.add(certificate.fingerprint256);
      if (anchors.has(certificate.fingerprint256)) continue;
      for (const issuer of this.#issuersOf(certificate, candidates, certificate === leaf)) {
        links.push({ issuer: this.#authority(issuer), serial: certificate.serialNumber });
        open.push(issuer);
      }
    }
    if (![...seen].some((fingerprint) => anchors.has(fingerprint))) {
      throw new MeshError('CV-PEER-CERT', 'tls handshake error: no path from the peer certificate to a trusted root');
    }
    return links;
  }

  #issuersOf(child: X509Certificate, candidates: readonly X509Certificate[], isLeaf: boolean): X509Certificate[] {
    return candidates.filter((issuer) => {
      if (!child.checkIssued(issuer)) return false;
      if (isLeaf) return child.verify(issuer.publicKey);
      return remembered(this.#signed, `${child.fingerprint256} ${issuer.fingerprint256}`, () =>
        child.verify(issuer.publicKey),
      );
    });
  }

  #authority(certificate: X509Certificate): Authority {
    return remembered(this.#authorities, certificate.fingerprint256, () => authorityOf(certificate));
  }

  #root(pem: string): X509Certificate {
    return remembered(this.#roots, pem, () => new X509Certificate(pem));
  }
}

/** In the order sent. */
function presentedWith(leaf: X509Certificate): X509Certificate[] {
  const presented: X509Certificate[] = [];
  for (let next = leaf.issuerCertificate; next !== undefined; next = next.issuerCertificate) {
    if (presented.length === MAX_PRESENTED) {
      throw new MeshError('CV-PEER-CERT', `tls handshake error: peer sent more than ${MAX_PRESENTED} certificates`);
    }
    presented.push(next);
  }
  return presented;
}

function remembered<T>(map: Map<string, T>, key: string, make: () => T): T {
  const known = map.get(key);
  if (known !== undefined) return known;
  if (map.size >= MAX_REMEMBERED) map.clear();
  const made = make();
  map.set(key, made);
  return made;
}
