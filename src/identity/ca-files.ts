/** Certificate and key pairs of a CA on disk: one directory each, which appears whole or not at all and is never written again. */
import { createPrivateKey, type KeyObject, randomBytes } from 'node:crypto';
import { readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode, MeshError, messageOf } from '../base/errors.ts';
import { makeDirectory } from '../sys/files.ts';
import { type CertificateFacts, readCertificate } from '../wire/x509-san.ts';
import { isMeshKey, publicKeyDer } from './keys.ts';
import { derToPem, pemBlocks } from './pem.ts';

const CERTIFICATE = 'cert.pem';
const KEY = 'key.pem';

/** A CA certificate as loaded, with its key when that is here. */
export interface CaPair {
  /** Path of the certificate, for messages. */
  readonly file: string;
  readonly der: Buffer;
  readonly pem: string;
  readonly facts: CertificateFacts;
  /** Absent for a root whose key is kept elsewhere. */
  readonly privateKey?: KeyObject;
  /** Others than the owner can read the key. */
  readonly isKeyExposed: boolean;
}

export function caFault(file: string, what: string, cure: string, cause?: unknown): MeshError {
  return new MeshError('CV-CA', `cannot use ${file}: ${what}; ${cure}`, { file }, { cause });
}

/** The pair in `directory`; `undefined` when there is no such directory or it is empty. */
export async function loadPair(directory: string): Promise<CaPair | undefined> {
  const names = await listed(directory);
  if (names.length === 0) return undefined;
  const file = join(directory, CERTIFICATE);
  const certificate = readCaCertificate(file, await text(file));
  if (!names.includes(KEY)) return { file, ...certificate, isKeyExposed: false };
  const keyFile = join(directory, KEY);
  const privateKey = readKey(keyFile, await text(keyFile));
  if (!publicKeyDer(privateKey).equals(certificate.facts.publicKeyDer)) {
    throw caFault(keyFile, `the key does not belong to ${file}`, 'restore both files from the same backup');
  }
  const { mode } = await stat(keyFile);
  return { file, ...certificate, privateKey, isKeyExposed: (mode & 0o077) !== 0 };
}

/**
 * Writes a new pair as `directory`, readable by its owner alone. False, and nothing changed, when another agent was first:
 * `rename` refuses to replace a directory that is not empty.
 */
export async function createPair(directory: string, certificateDer: Uint8Array, keyPem: string): Promise<boolean> {
  const draft = `${directory}.new-${randomBytes(6).toString('hex')}`;
  try {
    makeDirectory(draft);
    const options = { mode: 0o600, flag: 'wx', flush: true };
    await writeFile(join(draft, KEY), keyPem, options);
    await writeFile(join(draft, CERTIFICATE), derToPem('CERTIFICATE', certificateDer), options);
    await rename(draft, directory);
    return true;
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) return false;
    throw caFault(directory, messageOf(error), 'the agent must be able to write there on its first start', error);
  }
}

/** Certificates of one bundle file, for example an extra root. Rejects with `CV-CA`. */
export async function loadBundle(file: string): Promise<CaPair[]> {
  const bundle = await text(file);
  return blocksOf(file, 'CERTIFICATE', bundle).map((der) => ({ file, ...readCaDer(file, der), isKeyExposed: false }));
}

/** Names in a directory, sorted; none when it does not exist. */
export async function listed(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw caFault(directory, messageOf(error), 'it must be a directory that the agent can read', error);
  }
}

/** Changes whenever the file is written or replaced; empty when it does not exist. */
export async function fingerprint(file: string): Promise<string> {
  const seen = await stat(file, { bigint: true }).catch(() => undefined);
  return seen === undefined ? '' : `${file}:${seen.ino}:${seen.size}:${seen.mtimeNs}`;
}

type CaCertificate = Pick<CaPair, 'der' | 'pem' | 'facts'>;

function readCaCertificate(file: string, pem: string): CaCertificate {
  const [der, ...more] = blocksOf(file, 'CERTIFICATE', pem);
  if (der === undefined || more.length > 0) throw caFault(file, 'it must hold one certificate', 'remove the others');
  return readCaDer(file, der);
}

function readCaDer(file: string, der: Buffer): CaCertificate {
  const facts = decode(file, () => readCertificate(der));
  if (!facts.isCa) throw caFault(file, 'it is no CA certificate', 'put a CA certificate there');
  return { der, pem: derToPem('CERTIFICATE', der), facts };
}

function readKey(file: string, pem: string): KeyObject {
  const key = decode(file, () => createPrivateKey(pem));
  if (!isMeshKey(key)) throw caFault(file, 'it is no ECDSA P-256 key', 'use a P-256 key in PKCS#8 PEM');
  return key;
}

function blocksOf(file: string, label: string, pem: string): Buffer[] {
  return decode(file, () => pemBlocks(label, pem));
}

function decode<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw caFault(file, messageOf(error), 'restore it from a backup', error);
  }
}

async function text(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw caFault(file, messageOf(error), 'it must be a file that the agent can read', error);
  }
}
