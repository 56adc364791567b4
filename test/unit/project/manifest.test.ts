/** The DaemonSet manifest: privileges and probes as in the chart of ztunnel, and settings that the agent accepts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { resolveConfig } from '../../../src/agent/config.ts';

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly { readonly resources: readonly string[]; readonly verbs: readonly string[] }[];
  readonly spec?: DaemonSetSpec;
}

interface DaemonSetSpec {
  readonly updateStrategy: unknown;
  readonly template: { readonly spec: PodSpec };
}

interface PodSpec {
  readonly hostNetwork?: boolean;
  readonly hostPID?: boolean;
  readonly serviceAccountName: string;
  readonly priorityClassName: string;
  readonly terminationGracePeriodSeconds: number;
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string }[];
}

interface Container {
  readonly name: string;
  readonly securityContext: unknown;
  readonly readinessProbe: unknown;
  readonly livenessProbe?: unknown;
  readonly ports: readonly { readonly containerPort: number }[];
  readonly env: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
}

const documents = parseAllDocuments(readFileSync('daemonset/culvert.yaml', 'utf8'));
const manifests = documents.map((document) => document.toJS() as Manifest);

function only(kind: string): Manifest {
  const found = manifests.filter((manifest) => manifest.kind === kind);
  assert.equal(found.length, 1, `${found.length} of ${kind}`);
  return found[0] ?? assert.fail();
}

const daemonSet = only('DaemonSet').spec ?? assert.fail('DaemonSet without spec');
const pod = daemonSet.template.spec;
const [agent = assert.fail('no container')] = pod.containers;

test('the manifest is YAML without errors or warnings', () => {
  assert.deepEqual(
    documents.flatMap((document) => [...document.errors, ...document.warnings]),
    [],
  );
});

test('the agent is root with exactly three capabilities, and not privileged', () => {
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

test('the agent shares neither the network nor the processes of its node', () => {
  assert.equal(pod.hostNetwork, undefined);
  assert.equal(pod.hostPID, undefined);
});

test('readiness is asked on 15021, and nothing restarts a busy agent', () => {
  assert.deepEqual(agent.readinessProbe, { httpGet: { path: '/healthz/ready', port: 15_021 } });
  assert.equal(agent.livenessProbe, undefined);
  assert.deepEqual(
    agent.ports.map((port) => port.containerPort),
    [15_020],
  );
});

test('a rolling update starts the new agent before it stops the old one', () => {
  assert.deepEqual(daemonSet.updateStrategy, {
    type: 'RollingUpdate',
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 },
  });
  assert.equal(pod.terminationGracePeriodSeconds, 30);
  assert.equal(pod.priorityClassName, 'system-node-critical');
});

test('the service account of the agent exists and may only read pods and namespaces', () => {
  assert.equal(pod.serviceAccountName, only('ServiceAccount').metadata.name);
  const rules = only('ClusterRole').rules ?? [];
  assert.deepEqual(
    rules.flatMap((rule) => rule.resources),
    ['pods', 'namespaces'],
  );
  assert.deepEqual(new Set(rules.flatMap((rule) => rule.verbs)), new Set(['get', 'list', 'watch']));
});

test('the agent accepts its settings, and can write what it must although its root is read-only', () => {
  // What the kubelet fills in is known only on a node.
  const env = Object.fromEntries(agent.env.map(({ name, value }) => [name, value ?? 'from-the-kubelet']));
  const result = resolveConfig(env, {});
  assert(result.ok, JSON.stringify(result));
  const writable = agent.volumeMounts.filter((mount) => mount.readOnly !== true).map((mount) => mount.mountPath);
  for (const folder of [result.config.runDir, result.config.certificateSource.dir]) {
    assert(
      writable.some((mountPath) => folder.startsWith(mountPath)),
      folder,
    );
  }
  assert.equal(result.config.drainGraceMs, 25_000);
});

test('every mount of the agent has its volume', () => {
  const volumes = pod.volumes.map((volume) => volume.name).toSorted();
  assert.deepEqual(agent.volumeMounts.map((mount) => mount.name).toSorted(), volumes);
});
