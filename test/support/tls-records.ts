/** TLS 1.3 records of our own on a connection whose handshake node:tls has made: what no TLS library would send. */
import { type CipherGCMTypes, createCipheriv, createHmac } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';

const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
/** KeyUpdate without a request for another one (RFC 8446 §4.6.3). */
const KEY_UPDATE = Buffer.from([24, 0, 0, 1, 0]);
const TAG_BYTES = 16;

interface Suite {
  readonly algorithm: CipherGCMTypes;
  readonly hash: string;
  readonly keyBytes: number;
}

const SUITES: Readonly<Record<string, Suite>> = {
  TLS_AES_128_GCM_SHA256: { algorithm: 'aes-128-gcm', hash: 'sha256', keyBytes: 16 },
  TLS_AES_256_GCM_SHA384: { algorithm: 'aes-256-gcm', hash: 'sha384', keyBytes: 32 },
};

/** Makes the records of one direction. Nobody else may send in it. */
export class RecordMaker {
  readonly #suite: Suite;
  #secret: Buffer;
  #sequence = 0;

  constructor(suite: Suite, secret: Buffer) {
    this.#suite = suite;
    this.#secret = secret;
  }

  data(content: Uint8Array): Buffer {
    return this.#record(content, APPLICATION_DATA);
  }

  keyUpdate(): Buffer {
    const record = this.#record(KEY_UPDATE, HANDSHAKE);
    this.#secret = this.#expand('traffic upd', this.#secret.length);
    this.#sequence = 0;
    return record;
  }

  #record(content: Uint8Array, type: number): Buffer {
    const { algorithm, keyBytes } = this.#suite;
    const nonce = Buffer.from(this.#expand('iv', 12));
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ this.#sequence++) >>> 0, 8);
    const head = Buffer.from([APPLICATION_DATA, 3, 3, 0, 0]);
    head.writeUInt16BE(content.length + 1 + TAG_BYTES, 3);
    const cipher = createCipheriv(algorithm, this.#expand('key', keyBytes), nonce).setAAD(head);
    return Buffer.concat([
      head,
      cipher.update(content),
      cipher.update(Uint8Array.of(type)),
      cipher.final(),
      cipher.getAuthTag(),
    ]);
  }

  /** HKDF-Expand-Label (RFC 8446 §7.1), for no more than one block. */
  #expand(label: string, bytes: number): Buffer {
    const name = Buffer.from(`tls13 ${label}`);
    const info = Buffer.concat([Uint8Array.of(0, bytes, name.length), name, Uint8Array.of(0, 1)]);
    return createHmac(this.#suite.hash, this.#secret).update(info).digest().subarray(0, bytes);
  }
}

/** `received`: what the other side sends, decrypted. To `sent` go records of `maker`, and nothing else. */
export interface ForgedTls {
  readonly sent: net.Socket;
  readonly received: tls.TLSSocket;
  readonly maker: RecordMaker;
}

/** Rejects when the handshake fails. Errors of what it returns end those sockets, and need no listener. */
export async function forgeTls(options: tls.ConnectionOptions): Promise<ForgedTls> {
  const sent = net.connect({ port: options.port ?? 0, ...(options.host !== undefined && { host: options.host }) });
  await once(sent, 'connect');
  sent.on('error', () => {});
  const received = tls.connect({ ...options, socket: sent });
  const secret = Promise.withResolvers<Buffer>();
  received.on('keylog', (line: Buffer) => {
    const [label, , hex = ''] = line.toString().trim().split(' ');
    if (label === 'CLIENT_TRAFFIC_SECRET_0') secret.resolve(Buffer.from(hex, 'hex'));
  });
  await once(received, 'secureConnect');
  received.on('error', () => {});
  // Our side's end of the handshake is written after that event.
  await new Promise(setImmediate);
  const suite = SUITES[received.getCipher().standardName];
  if (suite === undefined) throw new Error(`unknown suite ${received.getCipher().standardName}`);
  return { sent, received, maker: new RecordMaker(suite, await secret.promise) };
}
