/**
 * Certificates in use, on disk and encrypted (AES-256-GCM) with a key that never leaves the node: an agent that restarts
 * while its CA is away serves with what it had, until that ends. Whoever can read both files is root on this node anyway;
 * a copy of one of them, as in a backup, is worth nothing.
 */
import { createCipheriv, createDecipheriv, randomBytes, X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { hasCode, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { makeDirectory, readBounded, writeAtomically } from '../sys/files.ts';
import type { IssuedCertificate } from './certificate-provider.ts';

/** A certificate with its key and roots: what a provider would answer. */
export interface KeptCertificate extends IssuedCertificate {
  readonly identity: string;
  readonly keyPem: string;
}

export interface CertificateVaultDeps {
  readonly clock: Clock;
  readonly log: Logger;
}

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Bound to the content: another format is not mistaken for this one. */
const FORMAT = Buffer.from('culvert-certificates-1');
/** Ten thousand identities with three roots each stay under it. */
const MAX_FILE_BYTES = 128 * 1024 * 1024;
/** Gathers the renewals of a busy moment into one write; a crash within it costs a request to the CA. */
const WRITE_DELAY_MS = 500;
/** After one that failed: a full disk gets room again, and the next certificate may be hours away. */
const RETRY_MS = 60_000;

export class CertificateVault {
  readonly #file: string;
  readonly #deps: CertificateVaultDeps;
  readonly #key: Buffer;
  /** As they were when the agent started, until somebody asks for them. */
  readonly #kept: Map<string, KeptCertificate>;
  #current: (() => readonly KeptCertificate[]) | undefined;
  #write: Disposable | undefined;
  #failure = '';
  #isRetired = false;

  private constructor(file: string, key: Buffer, deps: CertificateVaultDeps) {
    this.#file = file;
    this.#key = key;
    this.#deps = deps;
    this.#kept = new Map(this.#load().map((kept) => [kept.identity, kept]));
  }

  /** Makes the directory and the key on first use. Without them there is no vault: the log says why, nothing else changes. */
  static open(directory: string, deps: CertificateVaultDeps): CertificateVault | undefined {
    try {
      makeDirectory(directory);
      return new CertificateVault(join(directory, 'certificates.sealed'), nodeKey(join(directory, 'node.key')), deps);
    } catch (error) {
      deps.log.warn?.('certificates are not kept on disk', { directory, error: messageOf(error) });
      return undefined;
    }
  }

  /** What an earlier agent had for `identity`; may have expired meanwhile. Each is given once. */
  take(identity: string): KeptCertificate | undefined {
    const kept = this.#kept.get(identity);
    this.#kept.delete(identity);
    return kept;
  }

  /** Certificates changed: `current` is asked for all in use before the next write. */
  changed(current: () => readonly KeptCertificate[]): void {
    if (this.#isRetired) return;
    this.#current = current;
    this.#write ??= this.#deps.clock.after(WRITE_DELAY_MS, () => this.#save());
  }

  /** Another process keeps them from now on. */
  retire(): void {
    this.#write?.[Symbol.dispose]();
    this.#write = undefined;
    this.#isRetired = true;
  }

  /** Writes now what has not been written yet, and nothing after that: the certificates in use are about to be forgotten. */
  flush(): void {
    if (this.#write === undefined) return;
    this.#write[Symbol.dispose]();
    this.#save();
    this.retire();
  }

  #save(): void {
    this.#write = undefined;
    const all = [...this.#kept.values(), ...(this.#current?.() ?? [])].filter((kept) => this.#isAlive(kept));
    try {
      writeAtomically(this.#file, seal(this.#key, Buffer.from(JSON.stringify(all))));
      this.#failure = '';
    } catch (error) {
      this.#warnOnce('certificates cannot be kept on disk, trying again', messageOf(error));
      this.#write = this.#deps.clock.after(RETRY_MS, () => this.#save());
    }
  }

  #isAlive({ chainPem: [first = ''] }: KeptCertificate): boolean {
    try {
      return new X509Certificate(first).validToDate.getTime() > this.#deps.clock.wallMs();
    } catch {
      return false;
    }
  }

  #load(): readonly KeptCertificate[] {
    try {
      return parse(unseal(this.#key, readBounded(this.#file, MAX_FILE_BYTES)));
    } catch (error) {
      if (!hasCode(error, 'ENOENT'))
        this.#warnOnce('kept certificates cannot be read, new ones are requested', messageOf(error));
      return [];
    }
  }

  #warnOnce(message: string, error: string): void {
    if (this.#failure === message) return;
    this.#failure = message;
    this.#deps.log.warn?.(message, { file: this.#file, error });
  }
}

function nodeKey(file: string): Buffer {
  try {
    writeFileSync(file, randomBytes(KEY_BYTES), { mode: 0o600, flag: 'wx', flush: true });
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
  }
  const key = readBounded(file, KEY_BYTES);
  if (key.length !== KEY_BYTES)
    throw new Error(`${file} is not a key of ${KEY_BYTES} bytes; remove it to make a new one`);
  return key;
}

function seal(key: Buffer, plain: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(FORMAT);
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]);
}

function unseal(key: Buffer, content: Buffer): string {
  const nonce = content.subarray(0, NONCE_BYTES);
  const tag = content.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES);
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(FORMAT).setAuthTag(tag);
  const sealed = content.subarray(NONCE_BYTES + TAG_BYTES);
  return Buffer.concat([decipher.update(sealed), decipher.final()]).toString('utf8');
}

/** Only this program with this key can have written it: the shape is checked where it is used. */
function parse(text: string): readonly KeptCertificate[] {
  return JSON.parse(text) as readonly KeptCertificate[];
}
