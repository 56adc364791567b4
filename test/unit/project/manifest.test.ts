/** The DaemonSet manifest keeps the privileges and probes of facts the agent relies on (shape of the ztunnel chart). */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';

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
}

interface Container {
  readonly name: string;
  readonly securityContext: unknown;
  readonly readinessProbe: unknown;
  readonly livenessProbe?: unknown;
  readonly ports: readonly { readonly containerPort: number }[];
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
