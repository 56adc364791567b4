/** A control plane as istiod is one: delta ADS and the CA service on one TLS port, made of our own server parts. */
import type net from 'node:net';
import { create } from '@bufbuild/protobuf';
import { ipBytes } from '../../src/base/ip.ts';
import { rpcRefusal } from '../../src/rpc/status.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { systemRandom } from '../../src/sys/system-random.ts';
import { AuthorizationSchema } from '../../src/wire/pb/authorization_pb.ts';
import { TunnelProtocol, type Workload, WorkloadSchema } from '../../src/wire/pb/workload_pb.ts';
import { AdsService } from '../../src/xds/server/ads-service.ts';
import { ResourceStore, type ServedResource } from '../../src/xds/server/resource-store.ts';
import { servedAuthorization, servedWorkload } from '../../src/xds/server/served-resource.ts';
import { TYPE_URL } from '../../src/xds/type-url.ts';
import { AGENT_TOKEN, CaServer } from './ca-server.ts';
import { NAMESPACE, type TestMesh } from './mesh.ts';
import type { ServerCertificateFiles } from './server-certs.ts';

export class Istiod implements AsyncDisposable {
  readonly store: ResourceStore;
  readonly ads: AdsService;
  readonly ca: CaServer;

  private constructor(store: ResourceStore, ads: AdsService, ca: CaServer) {
    this.store = store;
    this.ads = ads;
    this.ca = ca;
  }

  /** On a TLS port of loopback, or at the path of a unix socket. */
  static async start(at: ServerCertificateFiles | string): Promise<Istiod> {
    const store = new ResourceStore([TYPE_URL.address, TYPE_URL.authorization]);
    const ads = new AdsService({
      clock: systemClock,
      random: systemRandom,
      log: {},
      store,
      authenticate: async (call) => {
        if (call.header('authorization') !== `Bearer ${AGENT_TOKEN}`) throw rpcRefusal('UNAUTHENTICATED', 'no token');
        return { description: 'ztunnel', admit: () => undefined };
      },
    });
    const listen =
      typeof at === 'string'
        ? ({ kind: 'unix', path: at } as const)
        : ({ kind: 'tls', host: '127.0.0.1', port: 0, certificate: at } as const);
    return new Istiod(store, ads, await CaServer.start({ listen, services: [ads.rpc] }));
  }

  /** Reaches the control plane from inside a pod, since it listens on the loopback of the test. */
  forward(connect: (options: net.NetConnectOpts) => net.Socket): (socket: net.Socket) => void {
    return (socket) => {
      const through = connect({ host: '127.0.0.1', port: this.ca.port, allowHalfOpen: true });
      socket.pipe(through).pipe(socket);
      for (const [one, other] of [
        [socket, through],
        [through, socket],
      ] as const) {
        one.on('error', () => other.destroy());
        one.on('close', () => other.destroy());
      }
    };
  }

  /** What istiod would tell of these pods of the lab. */
  tellPods(mesh: TestMesh, names: readonly string[]): void {
    this.#apply(
      'address',
      names.map((name) => servedWorkload(workloadOf(mesh, name))),
    );
  }

  tellPolicy(name: string, principals: readonly string[]): void {
    const matches = [{ principals: principals.map((value) => ({ matchType: { case: 'exact' as const, value } })) }];
    const policy = create(AuthorizationSchema, {
      name,
      namespace: NAMESPACE,
      scope: 1,
      groups: [{ rules: [{ matches }] }],
    });
    this.#apply('authorization', [servedAuthorization(policy)]);
  }

  forgetPolicy(name: string): void {
    this.store.apply(TYPE_URL.authorization, { upserts: [], removals: [`${NAMESPACE}/${name}`] });
  }

  /** A resource that no client can read. */
  tellRubbish(name: string): void {
    this.#apply('address', [{ name, bytes: new Uint8Array([0xff]), aliases: [], memberOf: [], node: '' }]);
  }

  forget(name: string): void {
    this.store.apply(TYPE_URL.address, { upserts: [], removals: [name] });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ca[Symbol.asyncDispose]();
    this.ads[Symbol.dispose]();
  }

  #apply(type: keyof typeof TYPE_URL, upserts: readonly ServedResource[]): void {
    this.store.apply(TYPE_URL[type], { upserts, removals: [] });
  }
}

function workloadOf(mesh: TestMesh, name: string): Workload {
  const pod = mesh.pod(name);
  return create(WorkloadSchema, {
    uid: `Kubernetes//Pod/${NAMESPACE}/${name}`,
    name,
    namespace: NAMESPACE,
    serviceAccount: name,
    addresses: pod.ips.flatMap((ip) => ipBytes(ip) ?? []),
    tunnelProtocol: name.startsWith('outside') ? TunnelProtocol.NONE : TunnelProtocol.HBONE,
    node: pod.node,
    clusterId: 'Kubernetes',
  });
}
