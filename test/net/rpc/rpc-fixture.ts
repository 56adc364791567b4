/** A gRPC server of ours on loopback, and channels to it, for tests of both. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { silentLogger } from '../../../src/base/log.ts';
import type { RpcAddress } from '../../../src/rpc/address.ts';
import { RpcChannel, type RpcChannelOptions } from '../../../src/rpc/channel.ts';
import { type RpcListen, RpcServer, type RpcServerOptions } from '../../../src/rpc/server.ts';
import { type CallContext, type RpcService, rpcService } from '../../../src/rpc/service.ts';
import { readBounded } from '../../../src/sys/files.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { IstioCertificateResponseSchema, IstioCertificateService } from '../../../src/wire/pb/citadel_pb.ts';
import { type ServerCertificateFiles, serverCertificate } from '../../support/server-certs.ts';

export const certificate = serverCertificate('DNS:localhost', 'IP:127.0.0.1', 'DNS:istiod.istio-system.svc');
const deps = { clock: systemClock, files: { read: readBounded } };
export const never = new AbortController().signal;
const limits = { maxConnections: 100, maxStreamsPerConnection: 100, maxReceiveBytes: 1024 * 1024 };

/** Answers with what `answer` makes of the CSR text. */
export function certificateService(
  answer: (csr: string, context: CallContext) => Promise<string> | string,
): RpcService {
  return rpcService(IstioCertificateService, {
    createCertificate: async ({ csr }, context) => {
      return create(IstioCertificateResponseSchema, { certChain: [await answer(csr, context)] });
    },
  });
}

export function loopback(files: ServerCertificateFiles = certificate, port = 0): RpcListen & { readonly kind: 'tls' } {
  return { kind: 'tls', host: '127.0.0.1', port, certificate: files };
}

export function serve(service: RpcService, options: Partial<RpcServerOptions> = {}): Promise<RpcServer> {
  return RpcServer.listen(
    { listen: loopback(), services: [service], ...limits, ...options },
    { clock: systemClock, log: silentLogger },
  );
}

export function channelTo(address: RpcAddress, options: Partial<RpcChannelOptions> = {}): RpcChannel {
  return new RpcChannel(
    {
      address,
      name: 'server',
      failureCode: 'CV-XDS',
      tls: { roots: { kind: 'inline', pem: certificate.rootPem } },
      credentials: { token: { kind: 'none' }, headers: new Map() },
      ...options,
    },
    deps,
  );
}

export function localhost({ port }: RpcServer): RpcAddress {
  return { kind: 'tls', host: 'localhost', port };
}

export interface Directory extends Disposable {
  /** Writes a file and says where. */
  write(name: string, content: string): string;
  path(name: string): string;
}

export function directory(): Directory {
  const root = mkdtempSync(join(tmpdir(), 'culvert-rpc-'));
  const path = (name: string): string => join(root, name);
  return {
    path,
    write: (name, content) => {
      writeFileSync(path(name), content);
      return path(name);
    },
    [Symbol.dispose]: () => rmSync(root, { recursive: true }),
  };
}
