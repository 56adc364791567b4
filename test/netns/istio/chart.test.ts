/** The manifest that takes the place of ztunnel, started in two namespaces of this machine: its environment, its mounts, nothing else. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { AgentProcess } from '../../support/agent-process.ts';
import { AGENT_TOKEN } from '../../support/ca-server.ts';
import { CniAgent } from '../../support/cni-agent.ts';
import { schemaErrors } from '../../support/config-dump-schema.ts';
import { Istiod } from '../../support/istiod.ts';
import { identityOf, meshForFile, NAMESPACE, type TestMesh, uidOf } from '../../support/mesh.ts';
import { ask, dial, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { serverCertificate } from '../../support/server-certs.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const PODS = { n1: 'client', n2: 'server' } as const;
type Node = keyof typeof PODS;

interface Variable {
  readonly name: string;
  readonly value?: string;
}

/** What the manifest says, without what only a kubelet knows. */
const manifest = parseAllDocuments(readFileSync('daemonset/ztunnel.yaml', 'utf8')).map((document) => document.toJS());
const [container] = manifest.find(({ kind }) => kind === 'DaemonSet').spec.template.spec.containers;
const args: readonly string[] = container.args;
const environment: readonly Variable[] = container.env;

const certificate = serverCertificate('DNS:istiod.istio-system.svc');
const istiod = await Istiod.start(certificate);
const cnis = new Map<Node, CniAgent>();
after(async () => {
  await istiod[Symbol.asyncDispose]();
  for (const cni of cnis.values()) cni[Symbol.dispose]();
});

/** What the root of a pod on `node` is: the mounts of the manifest, and the socket of the CNI agent where the node has it. */
function rootOf(made: TestMesh, node: Node): string {
  return join(made.lab.folder, `root-${node}`);
}

const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'], n3: ['outside-istiod'] },
  enrolled: [],
  async beforeAgents(made) {
    made.serve('outside-istiod', 15_012, istiod.forward(net.connect));
    istiod.tellPods(made, ['client', 'server', 'outside-istiod']);
    for (const node of ['n1', 'n2'] as const) {
      const root = rootOf(made, node);
      for (const mount of ['istio', 'tokens']) mkdirSync(join(root, 'var/run/secrets', mount), { recursive: true });
      writeFileSync(join(root, 'var/run/secrets/istio/root-cert.pem'), certificate.rootPem);
      writeFileSync(join(root, 'var/run/secrets/tokens/istio-token'), AGENT_TOKEN);
      mkdirSync(join(root, 'var/run/ztunnel'));
      const cni = new CniAgent(join(root, 'var/run/ztunnel/ztunnel.sock'));
      cnis.set(node, cni);
      const name = PODS[node];
      const netnsPath = made.pod(name).inside.path;
      await cni.prepare({ uid: uidOf(name), name, namespace: NAMESPACE, serviceAccount: name, netnsPath });
    }
  },
});

/** `proxy ztunnel` with the environment of the manifest and no variable of this machine. */
function start(node: Node): AgentProcess {
  const made = mesh();
  const root = rootOf(made, node);
  const istiodAddress = `${made.pod('outside-istiod').ip}:15012`;
  const kubelet: Readonly<Record<string, string>> = {
    POD_NAME: `ztunnel-${node}`,
    POD_NAMESPACE: 'istio-system',
    NODE_NAME: node,
    INSTANCE_IP: made.lab.node(node).ips[0] ?? '',
    SERVICE_ACCOUNT: 'ztunnel',
    ZTUNNEL_CPU_LIMIT: '2',
    // Names do not resolve here, and /var/run/ztunnel of the node is in a folder of the test.
    XDS_ADDRESS: istiodAddress,
    CA_ADDRESS: istiodAddress,
    INPOD_UDS: join(root, 'var/run/ztunnel/ztunnel.sock'),
    ALT_XDS_HOSTNAME: 'istiod.istio-system.svc',
    ALT_CA_HOSTNAME: 'istiod.istio-system.svc',
    // What the chart sets with `logAsJson` and for DNS of its own.
    LOG_FORMAT: 'json',
    ISTIO_META_DNS_CAPTURE: 'false',
    TERMINATION_GRACE_PERIOD_SECONDS: '3',
  };
  const rendered = Object.fromEntries(environment.map(({ name, value }) => [name, value ?? '']));
  const variables = Object.entries({ PATH: process.env['PATH'] ?? '', ...rendered, ...kubelet });
  const prefix = ['env', '-i', '-C', root, ...variables.map(([name, value]) => `${name}=${value}`)];
  return new AgentProcess(made.lab.node(node), args, {}, prefix);
}

async function ready(agent: AgentProcess): Promise<void> {
  await agent.line(({ message }) => message.endsWith('marking server ready'), 'line that the agent is ready');
}

test(
  'with the environment and mounts of the manifest agents are ready, and their pods talk through HBONE',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    await using first = start('n1');
    await using second = start('n2');
    await Promise.all([ready(first), ready(second)]);
    const to = { ip: mesh().pod('server').ip, port: 8080 };
    assert.equal(await ask(mesh(), 'client', to, 'hello'), 'hellohello');
    const line = await second.access('inbound', { 'dst.hbone_addr': `${to.ip}:8080` });
    assert.equal(line['src.identity'], identityOf('client'));

    const dump = JSON.parse((await first.get('/config_dump')).body);
    assert.deepEqual(schemaErrors(dump), []);
    assert.equal(dump.config.proxyArgs, 'proxy ztunnel');
    assert.deepEqual(dump.config.xdsRootCert, { File: './var/run/secrets/istio/root-cert.pem' });
    assert(existsSync(join(rootOf(mesh(), 'n1'), 'var/run/ztunnel/culvert')), 'state is beside the socket');

    // As an update of the DaemonSet: the next pod starts beside the one that serves, and takes the node over.
    using open = await dial(mesh(), 'client', to);
    await open.exchange('before');
    await using next = start('n2');
    await next.tookOver();
    await ready(next);
    await open.exchange('still');
    assert.equal(await ask(mesh(), 'client', to, 'again'), 'againagain');
    await next.access('inbound', { 'dst.hbone_addr': `${to.ip}:8080` });
    open.socket.end();
    assert.equal(await second.exited, 0);
  },
);
