/** Who is revoked: judges peers in the handshake, and tells tunnels when a new list names theirs. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type tls from 'node:tls';
import { MeshError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { append } from '../base/multimap.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { Authority } from './authority.ts';
import { type Crl, readCrls, unsignedText } from './crl.ts';
import { PathFinder, type PathLink } from './verified-path.ts';

/** Who reports a rejection: the side that opened the connection, or the one that was called. */
export type Reporter = 'source' | 'destination';

export interface RevocationDeps {
  readonly log: Logger;
  /** A peer was turned away, or its tunnel cut. */
  onRejected(reporter: Reporter): void;
}

/** A live tunnel, and how to end it. */
interface Watched {
  readonly id: number;
  readonly links: readonly PathLink[];
  readonly reporter: Reporter;
  readonly onRevoked: (error: MeshError) => void;
}

interface Judged {
  readonly links: readonly PathLink[];
  readonly reporter: Reporter;
}

/** Tunnels that are looked at in one go when the lists change, a few ms. */
const SLICE = 10_000;

/** One per thread of the data plane. Without lists it accepts everybody, and an unknown status is no objection. */
export class Revocation {
  readonly #deps: RevocationDeps;
  readonly #paths = new PathFinder();
  readonly #judged = new WeakMap<tls.TLSSocket, Judged>();
  readonly #watched = new SlotMap<number, Watched>();
  #lastId = 0;
  readonly #distrusted = new WeakSet<Crl>();
  #byIssuer: ReadonlyMap<string, readonly Crl[]> = new Map();
  #generation = 0;

  constructor(deps: RevocationDeps) {
    this.#deps = deps;
  }

  /** Takes over these lists (DER) in place of all before, and cuts the tunnels they name. Rejects and keeps the old ones when one is malformed. */
  async replace(ders: readonly Uint8Array[]): Promise<void> {
    this.#generation += 1;
    const generation = this.#generation;
    const lists = await readCrls(ders);
    // A newer set may have been read faster.
    if (generation !== this.#generation) return;
    const byIssuer = new Map<string, Crl[]>();
    for (const list of lists) append(byIssuer, list.issuer, list);
    this.#byIssuer = byIssuer;
    await this.#recheck();
  }

  /** To be called once the chain of the peer is verified. Throws `CV-PEER-REVOKED`, or `CV-PEER-CERT` without a path to a root. */
  check(socket: tls.TLSSocket, rootsPem: readonly string[], reporter: Reporter): void {
    const leaf = socket.getPeerX509Certificate();
    if (leaf === undefined) throw new MeshError('CV-PEER-CERT', 'tls handshake error: peer has no certificate');
    const links = this.#paths.links(leaf, rootsPem);
    const revoked = this.#revokedOf(links);
    if (revoked !== undefined) {
      this.#deps.onRejected(reporter);
      throw revokedError('tls handshake error: peer certificate is revoked by CRL', revoked);
    }
    this.#judged.set(socket, { links, reporter });
  }

  /**
   * Calls back, at most once, when a certificate of the peer of this checked socket is revoked, at once if that happened since
   * the handshake. Ends when the socket closes.
   */
  watch(socket: tls.TLSSocket, onRevoked: (error: MeshError) => void): void {
    const judged = this.#judged.get(socket);
    if (judged === undefined || socket.destroyed) return;
    const id = ++this.#lastId;
    const watched: Watched = { ...judged, id, onRevoked };
    this.#watched.set(id, watched);
    socket.once('close', () => this.#watched.delete(id));
    this.#judge(watched);
  }

  get watchedCount(): number {
    return this.#watched.size;
  }

  async #recheck(): Promise<void> {
    let seen = 0;
    let tunnels = 0;
    for (const watched of this.#watched.values()) {
      if (this.#judge(watched)) tunnels += 1;
      seen += 1;
      if (seen % SLICE === 0) await nextTurn();
    }
    const reason = 'CV-PEER-REVOKED';
    if (tunnels > 0) this.#deps.log.warn?.('tunnels closed: peer certificate revoked by CRL', { reason, tunnels });
  }

  /** True when the tunnel was told to end. */
  #judge(watched: Watched): boolean {
    const revoked = this.#revokedOf(watched.links);
    if (revoked === undefined) return false;
    this.#watched.delete(watched.id);
    this.#deps.onRejected(watched.reporter);
    watched.onRevoked(revokedError('connection closed: peer certificate revoked by CRL', revoked));
    return true;
  }

  #revokedOf(links: readonly PathLink[]): PathLink | undefined {
    return links.find(({ issuer, serial }) => {
      const named = this.#byIssuer.get(issuer.name)?.filter((list) => list.serials.has(serial));
      return named?.some((list) => this.#isFrom(list, issuer));
    });
  }

  /** A list that only claims to be from `issuer` revokes nothing. */
  #isFrom(list: Crl, issuer: Authority): boolean {
    if (list.isFrom(issuer)) return true;
    if (list.isNamedAfter(issuer) && !this.#distrusted.has(list)) {
      this.#distrusted.add(list);
      this.#deps.log.warn?.(unsignedText(issuer), { reason: 'CV-CRL' });
    }
    return false;
  }
}

function revokedError(text: string, { issuer, serial }: PathLink): MeshError {
  return new MeshError('CV-PEER-REVOKED', text, { serial, issuer: issuer.title });
}
