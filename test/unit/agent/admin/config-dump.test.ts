import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configDump, sortKeys, workloadState } from '../../../../src/agent/admin/config-dump.ts';
import { configSection } from '../../../../src/agent/admin/config-dump-settings.ts';
import type { PodView } from '../../../../src/agent/admin/views.ts';
import { resolveConfig } from '../../../../src/agent/settings/config.ts';
import { inbound, outbound, trafficFixture } from '../../telemetry/traffic-fixture.ts';

const up: PodView = {
  uid: 'pod-1',
  name: 'shop-6d9f7c5b8-x2x9q',
  namespace: 'retail',
  serviceAccount: 'shop',
  state: 'Up',
  repairs: 0,
};

test('the sections come out in the order of ztunnel, certificates by identity', () => {
  const dump = sortKeys(
    configDump({
      workloads: [],
      workloadState: {},
      version: {
        version: '1',
        gitRevision: 'g',
        rustVersion: 'node',
        buildProfile: 'release',
        buildStatus: 'Clean',
        istioVersion: '1.31',
        cryptoProvider: 'openssl',
      },
      staticConfig: {},
      stagedServices: {},
      services: [],
      policies: [],
      config: {},
      certificates: [{ identity: 'spiffe://b' }, { identity: 'spiffe://a' }],
    }),
  );
  assert.deepEqual(Object.keys(dump as object), [
    'certificates',
    'config',
    'policies',
    'services',
    'stagedServices',
    'staticConfig',
    'version',
    'workloadState',
    'workloads',
  ]);
  assert.match(JSON.stringify(dump), /^\{"certificates":\[\{"identity":"spiffe:\/\/a"\},/);
});

test('the state of a pod shows its connections as ztunnel does', () => {
  const { traffic } = trafficFixture();
  traffic.open(outbound);
  const { originalDst: _, ...withoutHost } = inbound;
  traffic.open(withoutHost);
  const pending: PodView = { ...up, uid: 'pod-2', state: 'Pending' };
  assert.equal(
    JSON.stringify(sortKeys(workloadState([up, pending], traffic.live()))),
    '{"pod-1":{"connections":{"inbound":[{"actualDst":"10.42.2.9:8080","originalDst":null,"protocol":"HBONE",' +
      '"src":"10.42.1.7:51840"}],"outbound":[{"actualDst":"10.42.2.9:15008","originalDst":"10.96.0.12:80",' +
      '"protocol":"HBONE","src":"10.42.1.7:51840"}]},"info":{"name":"shop-6d9f7c5b8-x2x9q","namespace":"retail",' +
      '"serviceAccount":"shop"},"state":"Up"},"pod-2":{"info":{"name":"shop-6d9f7c5b8-x2x9q","namespace":"retail",' +
      '"serviceAccount":"shop"},"state":"Pending"}}',
  );
});

test('the config section has every key of ztunnel, in the shapes its readers decode', () => {
  const env = {
    NODE_NAME: 'n1',
    LOCAL_XDS_PATH: 'm',
    CONNECTION_TERMINATION_DEADLINE: '5500ms',
    ISTIO_META_DNS_CAPTURE: 'true',
    PREFERED_SERVICE_NAMESPACE: 'shared',
  };
  const readText = (path: string) => (path === '/etc/resolv.conf' ? 'nameserver 10.96.0.10\n' : undefined);
  const resolved = resolveConfig(env, {}, { defaults: 'ztunnel', args: ['proxy', 'ztunnel'], readText });
  assert(resolved.ok);
  const config = sortKeys(configSection(resolved.config)) as Record<string, unknown>;
  const keys =
    'proxy dnsProxy windowSize connectionWindowSize frameSize poolMaxStreamsPerConn poolUnusedReleaseTimeout socks5Addr ' +
    'adminAddr statsAddr readinessAddr inboundAddr inboundPlaintextAddr outboundAddr dnsProxyAddr illegalPorts network ' +
    'localNode proxyMode proxyWorkloadInformation clusterId clusterDomain caAddress caRootCert altCaHostname xdsAddress ' +
    'xdsRootCert altXdsHostname preferedServiceNamespace secretTtl xdsOnDemand fakeCa fakeSelfInbound ' +
    'selfTerminationDeadline proxyMetadata numWorkerThreads requireOriginalSource proxyArgs dnsResolverCfg ' +
    'dnsResolverOpts inpodUds inpodPortReuse packetMark socketConfig xdsHeaders caHeaders localhostAppTunnel ' +
    'ztunnelIdentity ztunnelWorkload ipv6Enabled crlPath enableEnhancedBaggage';
  assert.deepEqual(Object.keys(config), keys.split(' ').toSorted());
  assert.deepEqual(config['adminAddr'], { Localhost: [true, 15_000] });
  assert.deepEqual(config['statsAddr'], { SocketAddr: '[::]:15020' });
  assert.equal(config['dnsProxy'], true);
  assert.deepEqual(config['dnsProxyAddr'], { Localhost: [true, 15_053] });
  assert.deepEqual(config['dnsResolverCfg'], {
    domain: null,
    name_servers: [
      { protocol: 'udp', socket_addr: '10.96.0.10:53' },
      { protocol: 'tcp', socket_addr: '10.96.0.10:53' },
    ],
    search: [],
  });
  assert.equal(config['preferedServiceNamespace'], 'shared');
  assert.deepEqual(config['selfTerminationDeadline'], { secs: 5, nanos: 500_000_000 });
  assert.equal(config['requireOriginalSource'], null);
});
