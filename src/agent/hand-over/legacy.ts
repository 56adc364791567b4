/** What an agent knows and its successor would otherwise have to ask others for: certificates with keys, and the mesh. */
import type { KeptCertificate } from '../../identity/certificate-vault.ts';
import { closeFd } from '../../sys/duplicate.ts';

export interface Legacy {
  /** In use. */
  readonly certificates: readonly KeptCertificate[];
  /** Of a `ResponseLog`; whoever holds this owns it. */
  readonly meshFd?: number | undefined;
}

export const NO_LEGACY: Legacy = { certificates: [] };

export function dropLegacy({ meshFd }: Legacy): void {
  if (meshFd !== undefined) closeFd(meshFd);
}

/** Base64, so that a part has as many bytes in a packet, with room for what is around it. */
const PART_CHARS = 60 * 1024;
/** A third more than certificates on disk may take. */
const MAX_CHARS = 170 * 1024 * 1024;
/** What the smallest part counts for: it is kept, too. */
const LEAST_CHARS = 1024;

/** At least one part. */
export function* certificateParts(certificates: readonly KeptCertificate[]): Iterable<string> {
  const text = Buffer.from(JSON.stringify(certificates)).toString('base64');
  for (let at = 0; at < text.length; at += PART_CHARS) yield text.slice(at, at + PART_CHARS);
}

/** Puts parts together again. Certificates are believed: they are checked where they are used. */
export class CertificateParts {
  readonly #parts: string[] = [];
  #chars = 0;

  /** Throws a plain `Error` when it is too much. */
  add(part: string): void {
    this.#chars += Math.max(part.length, LEAST_CHARS);
    if (this.#chars > MAX_CHARS) throw new Error(`certificates of over ${MAX_CHARS} characters`);
    this.#parts.push(part);
  }

  all(): readonly KeptCertificate[] {
    const text = Buffer.from(this.#parts.join(''), 'base64').toString('utf8');
    return JSON.parse(text) as readonly KeptCertificate[];
  }
}
