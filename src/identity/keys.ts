/** ECDSA P-256 keys: made and used by node:crypto, stored as PKCS#8 PEM. */
import { createPublicKey, generateKeyPair as generate, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

const generateAsync = promisify(generate);

/** Off the event loop: a burst of new identities must not delay handshakes. */
export async function generateKeyPair(): Promise<KeyPair> {
  return generateAsync('ec', { namedCurve: 'P-256' });
}

export function privateKeyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** SubjectPublicKeyInfo, DER, of a public key or of the public half of a private one. */
export function publicKeyDer(key: KeyObject): Buffer {
  return (key.type === 'private' ? createPublicKey(key) : key).export({ type: 'spki', format: 'der' });
}

/** ecdsa-with-SHA256 signature, DER. */
export function signSha256(key: KeyObject, bytes: Uint8Array): Buffer {
  return sign('sha256', bytes, key);
}

/** An ECDSA key on a curve that `signSha256` and every mesh peer can use. */
export function isMeshKey(key: KeyObject): boolean {
  return key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1';
}
