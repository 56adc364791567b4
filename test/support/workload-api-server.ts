/**
 * A SPIFFE Workload API written to the public specification: unix socket, no TLS, security header demanded, complete
 * responses on a stream (SPIFFE_Workload_API.md §4-5, SPIFFE_Workload_Endpoint.md §3 and §6).
 */
import { X509Certificate } from 'node:crypto';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { certificatePems } from '../../src/identity/pem.ts';
import type { TlsMaterial } from '../../src/model/verdict.ts';
import { RpcServer } from '../../src/rpc/server.ts';
import { type CallContext, rpcService } from '../../src/rpc/service.ts';
import { rpcRefusal } from '../../src/rpc/status.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { SpiffeWorkloadAPI, type X509SVIDResponse, X509SVIDResponseSchema } from '../../src/wire/pb/spiffe_pb.ts';

export type SvidResponse = MessageInitShape<typeof X509SVIDResponseSchema>;

export class WorkloadApiServer implements AsyncDisposable {
  readonly path: string;
  /** Streams opened so far. */
  opened = 0;
  /** While set, calls are refused with it, and `endStreams` ends those that are open with it. */
  refusal: Error | undefined;
  #response: SvidResponse = { svids: [] };
  #server: RpcServer | undefined;
  /** Aborted to end the streams of now. */
  #generation = new AbortController();
  readonly #wakers = new Set<() => void>();

  private constructor(path: string) {
    this.path = path;
  }

  static async start(path: string): Promise<WorkloadApiServer> {
    const server = new WorkloadApiServer(path);
    await server.resume();
    return server;
  }

  /** The complete state from now on, sent to every stream. */
  publish(response: SvidResponse): void {
    this.#response = response;
    for (const wake of [...this.#wakers]) wake();
  }

  endStreams(): void {
    this.#generation.abort();
    this.#generation = new AbortController();
  }

  async suspend(): Promise<void> {
    this.endStreams();
    await this.#server?.stop(0);
    this.#server = undefined;
  }

  async resume(): Promise<void> {
    const service = rpcService(SpiffeWorkloadAPI, {
      fetchX509SVID: (_request, context) => this.#stream(context),
      fetchX509Bundles: () => {
        throw rpcRefusal('UNIMPLEMENTED', 'not served here');
      },
    });
    const limits = { maxConnections: 10, maxStreamsPerConnection: 10, maxReceiveBytes: 1024 };
    const options = { listen: { kind: 'unix', path: this.path } as const, services: [service], ...limits };
    this.#server = await RpcServer.listen(options, { clock: systemClock, log: {} });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.suspend();
  }

  async *#stream({ header, signal }: CallContext): AsyncGenerator<X509SVIDResponse, void, undefined> {
    if (header('workload.spiffe.io') !== 'true') throw rpcRefusal('INVALID_ARGUMENT', 'security header missing');
    this.opened += 1;
    const until = AbortSignal.any([signal, this.#generation.signal]);
    let sent: SvidResponse | undefined;
    while (!until.aborted && this.refusal === undefined) {
      if (sent === this.#response) await this.#change(until);
      else {
        sent = this.#response;
        yield create(X509SVIDResponseSchema, sent);
      }
    }
    if (this.refusal !== undefined) throw this.refusal;
  }

  async #change(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wakers.add(resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
    await promise;
    this.#wakers.delete(resolve);
  }
}

/** One entry of a response. */
export function svidOf({ identity, chainPem, keyPem, rootsPem }: TlsMaterial) {
  return {
    spiffeId: identity,
    x509Svid: derOf(certificatePems(chainPem)),
    x509SvidKey: Buffer.from(keyPem.replaceAll(/-----.*-----|\s/g, ''), 'base64'),
    bundle: derOf(rootsPem),
  };
}

function derOf(pems: readonly string[]): Buffer {
  return Buffer.concat(pems.map((pem) => new X509Certificate(pem).raw));
}
