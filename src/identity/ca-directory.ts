/** The directory of the embedded CA: made on first start, shared by any number of agents, checked whole at every load. */
import { createPublicKey, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { makeDirectory } from '../sys/files.ts';
import { type CaPair, caFault, createPair, fingerprint, listed, loadBundle, loadPair } from './ca-files.ts';
import { BACKDATE_MS, buildCa } from './certificate-builder.ts';
import { generateKeyPair, privateKeyPem } from './keys.ts';

const ROOT = 'root';
const ISSUING = 'issuing-';
const EXTRA_ROOTS = 'extra-roots';
const MAX_EXTRA_ROOT_FILES = 100;
const NEW_CA =
  'restore it from a backup, or move the directory away to start a new CA (every peer then needs the new root)';

export interface CaLifetimes {
  readonly rootMs: number;
  readonly issuingMs: number;
}

/** Everything the directory holds, valid and fitting together. */
export interface CaState {
  readonly root: CaPair;
  /** Its key signs leaves. */
  readonly issuing: CaPair;
  /** Trusted besides `root`. */
  readonly extraRoots: readonly CaPair[];
}

export class CaDirectory {
  readonly path: string;
  readonly #lifetimes: CaLifetimes;
  readonly #log: Logger;

  constructor(path: string, lifetimes: CaLifetimes, log: Logger) {
    this.path = path;
    this.#lifetimes = lifetimes;
    this.#log = log;
  }

  /**
   * Loads what is there and makes what is missing. Rejects with `CV-CA`, which names the file, or with `CV-CONFIG` when there can
   * be no such directory; never replaces a file.
   */
  async open(nowMs: number): Promise<CaState> {
    this.#makeDirectory();
    const directory = join(this.path, ROOT);
    const root = (await loadPair(directory)) ?? (await this.#createRoot(directory, nowMs));
    return this.#complete(root, nowMs);
  }

  /** As `open`, for a CA that was there before: a root that vanished is an error, since a new one would split the mesh. */
  async reload(nowMs: number): Promise<CaState> {
    const directory = join(this.path, ROOT);
    const root = await loadPair(directory);
    if (root === undefined) throw caFault(directory, 'it is gone', NEW_CA);
    return this.#complete(root, nowMs);
  }

  /** Changes when any file of the CA was added, removed or replaced. */
  async fingerprint(): Promise<string> {
    const names = await listed(this.path);
    const pairs = names.filter((name) => name === ROOT || generation(name) > 0);
    const extras = await listed(join(this.path, EXTRA_ROOTS));
    const files = [...pairs.map((name) => join(name, 'cert.pem')), ...extras.map((name) => join(EXTRA_ROOTS, name))];
    return (await Promise.all(files.map((file) => fingerprint(join(this.path, file))))).join('\n');
  }

  #makeDirectory(): void {
    try {
      makeDirectory(this.path);
    } catch (error) {
      const text = `--ca-dir (CULVERT_CA_DIR) must be a directory that the agent can make or write: ${messageOf(error)}`;
      throw new MeshError('CV-CONFIG', text, { file: this.path }, { cause: error });
    }
  }

  async #complete(root: CaPair, nowMs: number): Promise<CaState> {
    checkDates(root, nowMs, NEW_CA);
    if (!isIssuedBy(root, root)) throw caFault(root.file, 'it is not signed by itself', NEW_CA);
    const issuing = await this.#issuing(root, nowMs);
    for (const { file, isKeyExposed } of [root, issuing]) {
      if (isKeyExposed) this.#log.warn?.('the key beside this certificate can be read by other users', { file });
    }
    return { root, issuing, extraRoots: await this.#extraRoots() };
  }

  async #createRoot(directory: string, nowMs: number): Promise<CaPair> {
    const { publicKey, privateKey } = await generateKeyPair();
    const validity = { notBeforeMs: nowMs - BACKDATE_MS, notAfterMs: nowMs + this.#lifetimes.rootMs };
    const der = buildCa({ ...validity, commonName: 'Culvert mesh root', publicKey, pathLength: 1 }, privateKey);
    const isMine = await createPair(directory, der, privateKeyPem(privateKey));
    this.#log.info?.(isMine ? 'mesh root created' : 'mesh root of another agent adopted', { directory });
    return this.#created(directory);
  }

  /** The newest issuing certificate; a new one when there is none, or when half of its lifetime is over and we may sign. */
  async #issuing(root: CaPair, nowMs: number): Promise<CaPair> {
    const generations = (await listed(this.path)).map(generation).filter((number) => number > 0);
    const newest = Math.max(0, ...generations);
    const issuing = await loadPair(join(this.path, `${ISSUING}${newest}`));
    if (issuing !== undefined) checkIssuing(issuing, root);
    if (issuing !== undefined && !(isHalfOver(issuing, nowMs) && root.privateKey !== undefined)) {
      checkDates(issuing, nowMs, `put ${join(this.path, ROOT, 'key.pem')} there to renew it`);
      return issuing;
    }
    return this.#createIssuing(root, newest + 1, nowMs);
  }

  async #createIssuing(root: CaPair, number: number, nowMs: number): Promise<CaPair> {
    const directory = join(this.path, `${ISSUING}${number}`);
    if (root.privateKey === undefined) {
      throw caFault(directory, 'it is missing, and the root key is not here to make it', 'add it, or the root key');
    }
    const { publicKey, privateKey } = await generateKeyPair();
    const validity = { notBeforeMs: nowMs - BACKDATE_MS, notAfterMs: nowMs + this.#lifetimes.issuingMs };
    const request = { ...validity, commonName: `Culvert mesh issuing ${number}`, publicKey, pathLength: 0 };
    const der = buildCa(request, root.privateKey, root.der);
    const isMine = await createPair(directory, der, privateKeyPem(privateKey));
    this.#log.info?.(isMine ? 'issuing certificate created' : 'issuing certificate adopted', { directory });
    const issuing = await this.#created(directory);
    checkIssuing(issuing, root);
    return issuing;
  }

  async #created(directory: string): Promise<CaPair> {
    const pair = await loadPair(directory);
    if (pair === undefined) throw caFault(directory, 'it vanished while it was being created', 'start again');
    return pair;
  }

  /** A root that cannot be read is left out with a warning: it can only make us trust less. */
  async #extraRoots(): Promise<CaPair[]> {
    const directory = join(this.path, EXTRA_ROOTS);
    const files = (await listed(directory)).filter((name) => /\.(pem|crt)$/.test(name)).slice(0, MAX_EXTRA_ROOT_FILES);
    const roots: CaPair[] = [];
    for (const file of files) {
      try {
        const bundle = await loadBundle(join(directory, file));
        const stray = bundle.find((root) => !isIssuedBy(root, root));
        if (stray !== undefined) throw caFault(stray.file, 'it is not signed by itself', 'put the root there');
        roots.push(...bundle);
      } catch (error) {
        this.#log.warn?.('extra root ignored', { reason: 'CV-CA', error: messageOf(error) });
      }
    }
    return roots;
  }
}

/** Number of an issuing directory, 0 for any other name. */
function generation(name: string): number {
  const match = /^issuing-([1-9]\d{0,5})$/.exec(name);
  return match === null ? 0 : Number(match[1]);
}

function checkIssuing(issuing: CaPair, root: CaPair): void {
  if (issuing.privateKey === undefined) {
    throw caFault(issuing.file, 'its key.pem is missing', 'restore the key from the same backup');
  }
  if (!isIssuedBy(issuing, root)) {
    throw caFault(issuing.file, `it is not signed by ${root.file}`, 'restore both from the same backup');
  }
}

function checkDates(pair: CaPair, nowMs: number, cure: string): void {
  if (nowMs > pair.facts.notAfterMs) throw caFault(pair.file, 'it has expired', cure);
  if (nowMs < pair.facts.notBeforeMs) throw caFault(pair.file, 'it is not valid yet', 'check the clock of this node');
}

function isIssuedBy(pair: CaPair, issuer: CaPair): boolean {
  const certificate = new X509Certificate(pair.der);
  const issuerKey = createPublicKey(issuer.pem);
  return certificate.checkIssued(new X509Certificate(issuer.der)) && certificate.verify(issuerKey);
}

function isHalfOver({ facts }: CaPair, nowMs: number): boolean {
  return nowMs >= (facts.notBeforeMs + facts.notAfterMs) / 2;
}
