/** The bearer token of a call: a file read anew for each call, or a fixed text. */
import { messageOf } from '../base/errors.ts';
import type { FileAccess } from './file-access.ts';

export type TokenSource =
  | { readonly kind: 'none' }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'literal'; readonly token: string };

/** Where Kubernetes projects the token of the agent's service account. */
const DEFAULT_TOKEN_PATH = './var/run/secrets/tokens/istio-token';
/** Kubernetes tokens are 1 to 2 KiB; HTTP/2 servers refuse header lists of more than 16 KiB. */
const MAX_TOKEN_BYTES = 12 * 1024;

/**
 * `setting` is `AUTH_TOKEN`. Unset: the default file when it is there at start, else no credentials at all. Set: a file
 * that exists is read for each call, any other text is the token itself.
 */
export function tokenSource(setting: string | undefined, isFile: (path: string) => boolean): TokenSource {
  const path = setting ?? DEFAULT_TOKEN_PATH;
  if (isFile(path)) return { kind: 'file', path };
  return setting === undefined ? { kind: 'none' } : { kind: 'literal', token: setting };
}

/** `undefined` = send no credentials. Throws a plain `Error` without any part of the token in it. */
export function readToken(source: TokenSource, files: FileAccess): string | undefined {
  switch (source.kind) {
    case 'none':
      return undefined;
    case 'literal':
      return checked(source.token, 'the token in the settings');
    case 'file':
      return checked(fileText(source.path, files), `token file ${source.path}`);
  }
}

function fileText(path: string, files: FileAccess): string {
  try {
    return Buffer.from(files.read(path, MAX_TOKEN_BYTES)).toString('utf8');
  } catch (error) {
    const why = messageOf(error);
    throw new Error(`token file ${path} cannot be read (${why}); is the projected token mounted?`, { cause: error });
  }
}

/** RFC 6750 §2.1 tokens; anything else could not be sent as a header or would smuggle another one. */
function checked(text: string, place: string): string {
  const token = text.trim();
  if (token === '') throw new Error(`${place} is empty`);
  if (!/^[A-Za-z0-9\-._~+/]+=*$/.test(token)) throw new Error(`${place} holds characters that no bearer token has`);
  return token;
}
