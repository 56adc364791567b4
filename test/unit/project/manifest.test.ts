/** The DaemonSet manifests: privileges, probes and mounts as in the chart of ztunnel, and settings that the agent accepts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { resolveConfig } from '../../../src/agent/settings/config.ts';

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec?: DaemonSetSpec;
}

interface DaemonSetSpec {
  readonly selector: { readonly matchLabels: Labels };
  readonly updateStrategy: unknown;
  readonly template: {
    readonly metadata: { readonly labels: Labels; readonly annotations: Labels };
    readonly spec: PodSpec;
  };
}

type Labels = Readonly<Record<string, string>>;

interface PodSpec {
  readonly hostNetwork?: boolean;
  readonly hostPID?: boolean;
  readonly serviceAccountName: string;
  readonly automountServiceAccountToken?: boolean;
  readonly priorityClassName: string;
  readonly terminationGracePeriodSeconds: number;
  readonly tolerations: readonly unknown[];
  readonly nodeSelector: Labels;
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string }[];
}

interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly terminationMessagePolicy?: string;
  readonly securityContext: unknown;
  readonly readinessProbe: unknown;
  readonly livenessProbe?: unknown;
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly env: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
}

function load(file: string) {
  const documents = parseAllDocuments(readFileSync(file, 'utf8'));
  const manifests = documents.map((document) => document.toJS() as Manifest);
  const only = (kind: string): Manifest => {
    const found = manifests.filter((manifest) => manifest.kind === kind);
    assert.equal(found.length, 1, `${found.length} of ${kind}`);
    return found[0] ?? assert.fail();
  };
  const { metadata, spec = assert.fail('DaemonSet without spec') } = only('DaemonSet');
  const [agent = assert.fail('no container')] = spec.template.spec.containers;
  return { documents, manifests, only, metadata, daemonSet: spec, pod: spec.template.spec, agent };
}

/** What the kubelet fills in is known only on a node; an address could stand for any of it. */
function environment({ env }: Container): Record<string, string> {
  return Object.fromEntries(env.map(({ name, value }) => [name, value ?? '10.0.0.9']));
}

const standalone = load('daemonset/culvert.yaml');
const dropIn = load('daemonset/ztunnel.yaml');

for (const [file, { documents, only, daemonSet, pod, agent }] of Object.entries({
  'culvert.yaml': standalone,
  'ztunnel.yaml': dropIn,
})) {
  test(`${file}: YAML without errors or warnings`, () => {
    assert.deepEqual(
      documents.flatMap((document) => [...document.errors, ...document.warnings]),
      [],
    );
  });

  test(`${file}: the agent is root with exactly three capabilities, and not privileged`, () => {
    assert.deepEqual(agent.securityContext, {
      privileged: false,
      allowPrivilegeEscalation: true,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'SYS_ADMIN', 'NET_RAW'] },
      readOnlyRootFilesystem: true,
      runAsGroup: 1337,
      runAsUser: 0,
      runAsNonRoot: false,
    });
  });

  test(`${file}: the agent shares neither the network nor the processes of its node`, () => {
    assert.equal(pod.hostNetwork, undefined);
    assert.equal(pod.hostPID, undefined);
  });

  test(`${file}: readiness is asked on 15021, and nothing restarts a busy agent`, () => {
    assert.deepEqual(agent.readinessProbe, { httpGet: { path: '/healthz/ready', port: 15_021 } });
    assert.equal(agent.livenessProbe, undefined);
    assert.deepEqual(
      agent.ports.map((port) => port.containerPort),
      [15_020],
    );
  });

  test(`${file}: on every Linux node, and a rolling update starts the new agent before it stops the old one`, () => {
    assert.deepEqual(daemonSet.updateStrategy, {
      type: 'RollingUpdate',
      rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
    });
    assert.equal(pod.terminationGracePeriodSeconds, 30);
    assert.equal(pod.priorityClassName, 'system-node-critical');
    assert.deepEqual(pod.nodeSelector, { 'kubernetes.io/os': 'linux' });
    assert.deepEqual(pod.tolerations, [
      { effect: 'NoSchedule', operator: 'Exists' },
      { key: 'CriticalAddonsOnly', operator: 'Exists' },
      { effect: 'NoExecute', operator: 'Exists' },
    ]);
  });

  test(`${file}: the pod is never captured itself, is scraped, and is the one that is selected`, () => {
    const { labels, annotations } = daemonSet.template.metadata;
    assert.equal(labels['istio.io/dataplane-mode'], 'none');
    assert.equal(labels['sidecar.istio.io/inject'], 'false');
    assert.equal(annotations['prometheus.io/port'], '15020');
    assert.equal(annotations['prometheus.io/scrape'], 'true');
    for (const [name, value] of Object.entries(daemonSet.selector.matchLabels)) assert.equal(labels[name], value);
  });

  test(`${file}: its service account is there, and every mount has its volume`, () => {
    assert.equal(pod.serviceAccountName, only('ServiceAccount').metadata.name);
    const volumes = pod.volumes.map((volume) => volume.name).toSorted();
    assert.deepEqual(agent.volumeMounts.map((mount) => mount.name).toSorted(), volumes);
  });
}

test('culvert.yaml: what an agent says that cannot start is shown with its pod', () => {
  assert.equal(standalone.agent.terminationMessagePolicy, 'FallbackToLogsOnError');
});

function assertWritable(folders: readonly string[], { volumeMounts }: Container): void {
  const writable = volumeMounts.filter((mount) => mount.readOnly !== true).map((mount) => mount.mountPath);
  for (const folder of folders) {
    assert(
      writable.some((mountPath) => folder.startsWith(`${mountPath}/`) || folder === mountPath),
      folder,
    );
  }
}

test('culvert.yaml: the agent has no right in the cluster, and no token to use one', () => {
  assert.deepEqual(
    standalone.manifests.map(({ kind }) => kind),
    ['Namespace', 'ServiceAccount', 'ConfigMap', 'DaemonSet'],
  );
  assert.equal(standalone.pod.automountServiceAccountToken, false);
});

test('culvert.yaml: in a rolling update the new agent takes the node over instead of ending because one serves it', () => {
  const result = resolveConfig(environment(standalone.agent), {});
  assert(result.ok && result.config.isTakeOver);
});

test('culvert.yaml: the agent accepts its settings, and can write what it must although its root is read-only', () => {
  const result = resolveConfig(environment(standalone.agent), {});
  assert(result.ok, JSON.stringify(result));
  const { runDir, certificateSource } = result.config;
  assert(certificateSource.kind === 'embedded');
  assertWritable([runDir, certificateSource.dir], standalone.agent);
  assert.equal(result.config.drainGraceMs, 25_000);
});

test('ztunnel.yaml: names that istioctl, istiod, Grafana and Kiali look for', () => {
  const { metadata, daemonSet, agent } = dropIn;
  assert.deepEqual([metadata.name, metadata.namespace], ['ztunnel', 'istio-system']);
  assert.equal(dropIn.only('ServiceAccount').metadata.name, 'ztunnel');
  assert.equal(daemonSet.template.metadata.labels['app'], 'ztunnel');
  assert.equal(agent.name, 'istio-proxy');
  assert.deepEqual(agent.args, ['proxy', 'ztunnel']);
  assert.deepEqual(agent.ports, [{ name: 'ztunnel-stats', containerPort: 15_020, protocol: 'TCP' }]);
});

test('ztunnel.yaml: the environment and the mounts are those that the chart of ztunnel renders', () => {
  const { agent, pod } = dropIn;
  const names =
    'CA_ADDRESS XDS_ADDRESS RUST_LOG RUST_BACKTRACE ISTIO_META_CLUSTER_ID INPOD_ENABLED TERMINATION_GRACE_PERIOD_SECONDS ' +
    'POD_NAME POD_NAMESPACE NODE_NAME INSTANCE_IP SERVICE_ACCOUNT ZTUNNEL_CPU_LIMIT';
  assert.deepEqual(
    agent.env.map(({ name }) => name),
    names.split(' '),
  );
  assert.deepEqual(agent.volumeMounts, [
    { name: 'istiod-ca-cert', mountPath: '/var/run/secrets/istio' },
    { name: 'istio-token', mountPath: '/var/run/secrets/tokens' },
    { name: 'cni-ztunnel-sock-dir', mountPath: '/var/run/ztunnel' },
    { name: 'tmp', mountPath: '/tmp' },
  ]);
  assert.deepEqual(pod.volumes, [
    {
      name: 'istio-token',
      projected: {
        sources: [{ serviceAccountToken: { path: 'istio-token', expirationSeconds: 43_200, audience: 'istio-ca' } }],
      },
    },
    { name: 'istiod-ca-cert', configMap: { name: 'istio-ca-root-cert' } },
    { name: 'cni-ztunnel-sock-dir', hostPath: { path: '/var/run/ztunnel', type: 'DirectoryOrCreate' } },
    { name: 'tmp', emptyDir: {} },
  ]);
});

test('ztunnel.yaml: started as the chart starts it, the agent accepts all of it and talks to istiod and istio-cni', () => {
  const readText = (path: string) => (path === '/etc/resolv.conf' ? 'nameserver 10.96.0.10\n' : undefined);
  const env = { ...environment(dropIn.agent), INSTANCE_IP: '10.244.1.5', ZTUNNEL_CPU_LIMIT: '8' };
  const result = resolveConfig(
    { ...env, KUBERNETES_SERVICE_HOST: '10.96.0.1' },
    {},
    {
      defaults: 'ztunnel',
      args: dropIn.agent.args,
      readText,
    },
  );
  assert(result.ok, JSON.stringify(result));
  const { config } = result;
  const istiod = { kind: 'tls', host: 'istiod.istio-system.svc', port: 15_012 };
  assert.deepEqual(config.xds?.server.address, istiod);
  assert(config.certificateSource.kind === 'istio');
  assert.deepEqual(config.certificateSource.server.address, istiod);
  assert.deepEqual(config.certificateSource.server.roots, {
    kind: 'file',
    path: './var/run/secrets/istio/root-cert.pem',
  });
  assert.deepEqual(config.podSource, { kind: 'zds', socket: '/var/run/ztunnel/ztunnel.sock' });
  assert.deepEqual(config.dnsProxy?.nameservers, [{ ip: '10.96.0.10', port: 53 }]);
  assert.equal(config.drainGraceMs, 25_000);
  assert.equal(config.clusterId, 'Kubernetes');
  assert.deepEqual(config.ignored, ['INPOD_ENABLED', 'RUST_BACKTRACE']);
  assertWritable([config.runDir, config.snapshotDir ?? config.runDir], dropIn.agent);
});
