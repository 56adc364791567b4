/** HBONE peers of a test mesh that are no agents: a client with any certificate, and a server such as a waypoint would be. */

import type { TLSSocket } from 'node:tls';
import { silentLogger } from '../../src/base/log.ts';
import { CaDirectory } from '../../src/identity/ca-directory.ts';
import { buildLeaf } from '../../src/identity/certificate-builder.ts';
import { generateKeyPair, privateKeyPem } from '../../src/identity/keys.ts';
import { derToPem } from '../../src/identity/pem.ts';
import { TlsContexts } from '../../src/identity/tls-context.ts';
import { acceptTls, connectTls } from '../../src/identity/tls-handshake.ts';
import type { TlsMaterial } from '../../src/model/verdict.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { H2Session, type RequestHead } from '../../src/tunnel/h2-session.ts';
import { CLIENT_SETTINGS, SERVER_SETTINGS } from '../../src/tunnel/h2-settings.ts';
import type { H2Stream } from '../../src/tunnel/h2-stream.ts';
import { readCertificate } from '../../src/wire/x509-san.ts';
import type { MaterialOverrides } from './certs.ts';
import { buildCrl, crlPem } from './crl.ts';
import type { TestMesh } from './mesh.ts';

const DAY_MS = 86_400_000;
const LIFETIMES = { rootMs: 3650 * DAY_MS, issuingMs: 365 * DAY_MS };
const handshake = { contexts: new TlsContexts(), clock: systemClock };

/** A certificate of the mesh's own CA for any identity, with its key. */
export async function meshMaterial(
  mesh: TestMesh,
  identity: string,
  { rootsPem, ...overrides }: MaterialOverrides = {},
): Promise<TlsMaterial> {
  const nowMs = Date.now();
  const { root, issuing, signer } = await authorityOf(mesh);
  const keys = await generateKeyPair();
  const validity = { notBeforeMs: nowMs - 120_000, notAfterMs: nowMs + 3_600_000 };
  const leaf = buildLeaf({ identity, publicKey: keys.publicKey, ...validity, ...overrides }, signer);
  const { serial, notAfterMs } = readCertificate(leaf);
  return {
    identity,
    keyPem: privateKeyPem(keys.privateKey),
    chainPem: derToPem('CERTIFICATE', leaf) + issuing.pem,
    rootsPem: rootsPem ?? [root.pem],
    serial,
    notAfterMs,
  };
}

/** A revocation list of the mesh's own CA, PEM. */
export async function meshCrl(mesh: TestMesh, serials: readonly string[]): Promise<string> {
  const { signer } = await authorityOf(mesh);
  return crlPem(buildCrl(signer, { serials }));
}

async function authorityOf(mesh: TestMesh) {
  const { root, issuing } = await new CaDirectory(mesh.caFolder, LIFETIMES, silentLogger).open(Date.now());
  if (issuing.privateKey === undefined) throw new Error('the CA of the mesh has no issuing key');
  return { root, issuing, signer: { privateKey: issuing.privateKey, certificateDer: issuing.der } };
}

/** A tunnel to port 15008 of a captured pod, from inside another pod. */
export class HboneClient implements Disposable {
  readonly session: H2Session;
  /** Resolves when the session is over; `undefined` when in order. */
  readonly closed: Promise<Error | undefined>;
  goaways = 0;

  private constructor(socket: ConstructorParameters<typeof H2Session>[0]['socket']) {
    const end = Promise.withResolvers<Error | undefined>();
    this.closed = end.promise;
    this.session = new H2Session({
      socket,
      role: 'client',
      settings: CLIENT_SETTINGS,
      clock: systemClock,
      handlers: { onClose: end.resolve, onGoaway: () => (this.goaways += 1) },
    });
  }

  /** `expected`: identities one of which the pod must prove. */
  static async open(mesh: TestMesh, from: string, to: HboneTarget): Promise<HboneClient> {
    return new HboneClient(await openTls(mesh, from, to));
  }

  /** Sends one CONNECT and resolves with status, headers and the stream, which is not read yet. */
  async connect(authority: string, headers: Readonly<Record<string, string>> = {}): Promise<HboneAnswer> {
    const stream = this.session.request({ authority, headers });
    const response = await stream.response;
    return { status: response.status, headers: new Map(response.headers), stream };
  }

  /** Status of one CONNECT; the stream is given up. */
  async status(authority: string): Promise<number> {
    const { status, stream } = await this.connect(authority);
    stream.destroy();
    return status;
  }

  [Symbol.dispose](): void {
    this.session.destroy();
  }
}

export interface HboneTarget {
  readonly ip: string;
  readonly material: TlsMaterial;
  readonly expected: readonly string[];
}

export interface HboneAnswer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, readonly string[]>;
  readonly stream: H2Stream;
}

export interface SeenConnect {
  /** Who the tunnel came from, by certificate and by address. */
  readonly identity: string | undefined;
  readonly peerIp: string;
  readonly request: RequestHead;
}

/**
 * Port 15008 of a pod that is not captured, as a waypoint has it: answers each CONNECT with 200, says `waypoint`, and
 * doubles what it hears, unless `answer` does something else.
 */
export async function serveWaypoint(
  mesh: TestMesh,
  pod: string,
  identity: string,
  answer: (stream: H2Stream) => void = double,
): Promise<{ readonly seen: SeenConnect[] } & Disposable> {
  const seen: SeenConnect[] = [];
  const material = await meshMaterial(mesh, identity);
  const application = mesh.serve(pod, 15_008, (socket) => {
    socket.pause();
    const peerIp = (socket.remoteAddress ?? '').replace('::ffff:', '');
    acceptTls(socket, material, handshake).then(
      ({ socket: secured, peerIdentity }) => {
        const onStream = (stream: H2Stream, request: RequestHead): void => {
          seen.push({ identity: peerIdentity, peerIp, request });
          answer(stream);
        };
        void new H2Session({
          socket: secured,
          role: 'server',
          settings: SERVER_SETTINGS,
          clock: systemClock,
          handlers: { onStream, onClose: () => {} },
        });
      },
      () => socket.destroy(),
    );
  });
  return { seen, [Symbol.dispose]: () => application[Symbol.dispose]() };
}

function double(stream: H2Stream): void {
  stream.respond(200);
  stream.write(Buffer.from('waypoint\n'));
  stream.open({
    onData: (chunk) => void stream.write(Buffer.concat([chunk, chunk])),
    onEnd: () => stream.end(),
    onDrain: () => {},
    onClose: () => {},
  });
}

/** A handshaken connection to port 15008 of a captured pod on which nobody speaks HTTP/2 yet. */
export async function openTls(mesh: TestMesh, from: string, to: HboneTarget): Promise<TLSSocket> {
  const socket = await mesh.dial(from, { ip: to.ip, port: 15_008 });
  return await connectTls(socket, to.material, to.expected, handshake);
}

/** Serial number of the certificate that port 15008 of a captured pod presents now. */
export async function serverSerial(mesh: TestMesh, from: string, to: HboneTarget): Promise<string> {
  const secured = await openTls(mesh, from, to);
  const serial = secured.getPeerX509Certificate()?.serialNumber ?? '';
  secured.destroy();
  return serial;
}
