/** The control plane of `npm run bench:state`, in a process of its own: serves the big mesh by delta ADS. Forked by `main.ts`. */
import { silentLogger } from '../../../src/base/log.ts';
import { RpcServer } from '../../../src/rpc/server.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { AdsService } from '../../../src/xds/server/ads-service.ts';
import { ResourceStore } from '../../../src/xds/server/resource-store.ts';
import { servedAuthorization, servedService, servedWorkload } from '../../../src/xds/server/served-resource.ts';
import { TYPE_URL } from '../../../src/xds/type-url.ts';
import { serverCertificate } from '../../support/server-certs.ts';
import { BigMesh, type MeshSize } from './big-mesh.ts';
import type { ControlPlaneAddress } from './figures.ts';
import { policyMessage, serviceMessage, workloadMessage } from './wire-mesh.ts';

process.once('message', (size: MeshSize) => {
  void serve(new BigMesh(size)).then((address) => process.send?.(address));
});

async function serve(mesh: BigMesh): Promise<ControlPlaneAddress> {
  const store = new ResourceStore([TYPE_URL.address, TYPE_URL.authorization]);
  const services = mesh.services().map((service) => servedService(serviceMessage(service)));
  const workloads = mesh.workloads().map((workload) => servedWorkload(workloadMessage(workload)));
  const policies = mesh.policies().map((policy) => servedAuthorization(policyMessage(policy)));
  store.apply(TYPE_URL.address, { upserts: [...services, ...workloads], removals: [] });
  store.apply(TYPE_URL.authorization, { upserts: [...policies], removals: [] });
  const anybody = { description: 'bench', admit: () => undefined };
  const ads = new AdsService({
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    store,
    authenticate: async () => anybody,
  });
  const certificate = serverCertificate('DNS:localhost');
  const server = await RpcServer.listen(
    {
      listen: { kind: 'tls', host: '127.0.0.1', port: 0, certificate },
      services: [ads.rpc],
      maxConnections: 10,
      maxStreamsPerConnection: 10,
      maxReceiveBytes: 64 * 1024 * 1024,
    },
    { clock: systemClock, log: silentLogger },
  );
  return { port: server.port, rootPem: certificate.rootPem };
}
