/** A control plane as istiod is one: delta ADS and the CA service on one TLS port, made of our own server parts. */
import type net from 'node:net';
import { create } from '@bufbuild/protobuf';
import { ipBytes } from '../../src/base/ip.ts';
import { rpcRefusal } from '../../src/rpc/status.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { systemRandom } from '../../src/sys/system-random.ts';
import { Action, AuthorizationSchema } from '../../src/wire/pb/authorization_pb.ts';
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

  /** On a TLS port of loopback, or at the path of a unix socket. `folder`: see `CaServerOptions`. */
  static async start(at: ServerCertificateFiles | string, folder?: string): Promise<Istiod> {
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
    const ca = await CaServer.start({ listen, services: [ads.rpc], ...(folder !== undefined && { folder }) });
    return new Istiod(store, ads, ca);
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

  /** Allows these principals and no others, or denies them. */
  tellPolicy(name: string, principals: readonly string[], action: Action = Action.ALLOW): void {
    const matches = [{ principals: principals.map((value) => ({ matchType: { case: 'exact' as const, value } })) }];
    const policy = create(AuthorizationSchema, {
      name,
      namespace: NAMESPACE,
      scope: 1,
      action,
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

  /** So many pods of elsewhere, which nobody dials. */
  tellGhosts(count: number): void {
    const names = Array.from({ length: count }, (_, i) => `ghost-${i}`);
    const addresses = (i: number) => [new Uint8Array([10, 99, i >> 8, i & 0xff])];
    this.#apply(
      'address',
      names.map((name, i) => {
        const fields = { name, namespace: NAMESPACE, serviceAccount: name, addresses: addresses(i), node: 'elsewhere' };
        return servedWorkload(create(WorkloadSchema, { uid: uidOfWorkload(name), ...fields }));
      }),
    );
  }

  forgetGhosts(count: number): void {
    const removals = Array.from({ length: count }, (_, i) => uidOfWorkload(`ghost-${i}`));
    this.store.apply(TYPE_URL.address, { upserts: [], removals });
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

function uidOfWorkload(name: string): string {
  return `Kubernetes//Pod/${NAMESPACE}/${name}`;
}

function workloadOf(mesh: TestMesh, name: string): Workload {
  const pod = mesh.pod(name);
  return create(WorkloadSchema, {
    uid: uidOfWorkload(name),
    name,
    namespace: NAMESPACE,
    serviceAccount: name,
    addresses: pod.ips.flatMap((ip) => ipBytes(ip) ?? []),
    tunnelProtocol: name.startsWith('outside') ? TunnelProtocol.NONE : TunnelProtocol.HBONE,
    node: pod.node,
    clusterId: 'Kubernetes',
  });
}
