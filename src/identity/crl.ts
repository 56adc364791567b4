/** Revocation lists (RFC 5280 §5) ready to be asked, read in slices so that a long one does not hold up the event loop. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MeshError } from '../base/errors.ts';
import { type CrlFacts, readCrl, revokedSerials } from '../wire/x509-crl.ts';
import type { Authority } from './authority.ts';
import { pemBlocks } from './pem.ts';
import { isKnownSignature, isSignedBy } from './signature.ts';

const MAX_LISTS = 256;
/** Revoked certificates in all lists together; each costs about 100 bytes. */
const MAX_SERIALS = 100_000;
/** Entries that are read in one go, about 2 ms. */
const SLICE = 2_000;

/** One list. Whether an authority really signed it is found out when it is asked for the first time. */
export class Crl {
  /** Name of the CA, DER in base64, as in `Authority`. */
  readonly issuer: string;
  readonly serials: ReadonlySet<string>;
  readonly #facts: CrlFacts;
  readonly #signers = new WeakMap<Authority, boolean>();

  constructor(facts: CrlFacts, serials: ReadonlySet<string>) {
    this.#facts = facts;
    this.issuer = Buffer.from(facts.issuerDer).toString('base64');
    this.serials = serials;
  }

  /** Its CA meant to have published a newer one by `wallMs`. It is used all the same. */
  isStale(wallMs: number): boolean {
    const { nextUpdateMs } = this.#facts;
    return nextUpdateMs !== undefined && nextUpdateMs < wallMs;
  }

  /** Claims to be from this authority: its name, and its key when both sides name one. Proves nothing. */
  isNamedAfter({ name, keyId }: Authority): boolean {
    const { authorityKeyId } = this.#facts;
    return (
      this.issuer === name && (keyId === undefined || authorityKeyId === undefined || keyId.equals(authorityKeyId))
    );
  }

  /** Signed by this authority, which may sign lists. */
  isFrom(authority: Authority): boolean {
    if (!this.isNamedAfter(authority)) return false;
    let isSigner = this.#signers.get(authority);
    if (isSigner === undefined) {
      isSigner = authority.maySignCrls && isSignedBy(this.#facts, authority.publicKey);
      this.#signers.set(authority, isSigner);
    }
    return isSigner;
  }
}

/** What is wrong with a list that is named after `authority` and not from it. */
export function unsignedText({ title, maySignCrls }: Authority): string {
  const why = maySignCrls
    ? 'its signature does not verify with the key of that CA'
    : 'that CA may not sign lists (key usage)';
  return `revocation list of ${title} is not used: ${why}`;
}

/** DER of each list in a file: PEM with any number of them, or DER with one. A file without any revokes nothing. */
export function crlBlocks(file: Buffer): Buffer[] {
  if (file[0] === SEQUENCE_TAG) return [file];
  const text = file.toString('latin1');
  if (text.includes('-----BEGIN X509 CRL-----')) return pemBlocks('X509 CRL', text);
  if (text.trim() === '' || text.includes('-----BEGIN ')) return [];
  throw new MeshError('CV-CRL', 'revocation list is neither PEM nor DER');
}

const SEQUENCE_TAG = 0x30;

/** Rejects with `CV-WIRE-MALFORMED` or `CV-CRL`: all lists are good or none is taken. */
export async function readCrls(ders: readonly Uint8Array[]): Promise<readonly Crl[]> {
  if (ders.length > MAX_LISTS) throw new MeshError('CV-CRL', `more than ${MAX_LISTS} revocation lists`);
  const lists: Crl[] = [];
  let left = MAX_SERIALS;
  for (const der of ders) {
    const facts = readCrl(der);
    if (!isKnownSignature(facts.signatureAlgorithm)) {
      throw new MeshError('CV-CRL', `revocation list has the signature algorithm ${facts.signatureAlgorithm}`);
    }
    const serials = await readSerials(facts, left);
    left -= serials.size;
    lists.push(new Crl(facts, serials));
  }
  return lists;
}

async function readSerials(facts: CrlFacts, max: number): Promise<ReadonlySet<string>> {
  const serials = new Set<string>();
  for (const serial of revokedSerials(facts)) {
    if (serials.size === max)
      throw new MeshError('CV-CRL', `revocation lists name more than ${MAX_SERIALS} certificates`);
    serials.add(serial);
    if (serials.size % SLICE === 0) await nextTurn();
  }
  return serials;
}
