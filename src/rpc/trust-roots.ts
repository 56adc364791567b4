/** Roots that a server certificate is verified with: a file, the roots of the operating system, or PEM text. */
import { X509Certificate } from 'node:crypto';
import tls from 'node:tls';
import { messageOf } from '../base/errors.ts';
import type { FileAccess } from './file-access.ts';

export type TrustRoots =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'system' }
  | { readonly kind: 'inline'; readonly pem: string };

/** A bundle of some hundred roots; more is no trust bundle. */
const MAX_ROOTS_BYTES = 1024 * 1024;

/** Text with a PEM block is PEM, `SYSTEM` the operating system's roots, anything else a path, which need not exist yet. */
export function parseTrustRoots(setting: string): TrustRoots {
  if (setting === 'SYSTEM') return { kind: 'system' };
  return setting.includes('-----BEGIN ') ? { kind: 'inline', pem: setting } : { kind: 'file', path: setting };
}

/** PEM texts to verify with, at least one certificate. Throws a plain `Error` that names the place and the cure. */
export function readTrustRoots(roots: TrustRoots, files: FileAccess): readonly string[] {
  switch (roots.kind) {
    case 'system': {
      const pems = tls.getCACertificates('system');
      if (pems.length === 0) throw new Error('the operating system has no trusted roots; install ca-certificates');
      return pems;
    }
    case 'inline':
      return [checked(roots.pem, 'the root certificate in the settings')];
    case 'file':
      return [checked(fileText(roots.path, files), roots.path)];
  }
}

function fileText(path: string, files: FileAccess): string {
  try {
    return Buffer.from(files.read(path, MAX_ROOTS_BYTES)).toString('utf8');
  } catch (error) {
    throw new Error(`root certificates cannot be read (${messageOf(error)}); mount them at ${path}`, { cause: error });
  }
}

/** node:tls skips text it cannot read, which would show as an unknown issuer much later. */
function checked(pem: string, place: string): string {
  try {
    void new X509Certificate(pem);
    return pem;
  } catch (error) {
    throw new Error(`${place} has no readable PEM certificate`, { cause: error });
  }
}
