import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AGENT_POD, identityOf, meshForFile } from '../../support/mesh.ts';
import { meshMaterial, openTls } from '../../support/mesh-hbone.ts';
import { Client, dial } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const AGENT = identityOf('agent');

/** The agents are workloads themselves, as the control plane describes them. */
const mesh = meshForFile(
  {
    nodes: { n1: ['client'], n2: ['outside'] },
    env: AGENT_POD,
    enrolled: ['client'],
    mesh: (started) => ({ workloads: [...started.workloads(), started.agentRecord('n1'), started.agentRecord('n2')] }),
  },
  async (started) => {
    await started
      .spawnAgent('n2')
      .line(({ message }) => message === 'mesh file loaded', 'line that the mesh was loaded');
    await started.ready('n2');
  },
);

function ipOf(node: string): string {
  return mesh().lab.node(node).ips[0] ?? '';
}

async function scrape(from: string, node: string): Promise<{ client: Client; body: string }> {
  const client = await dial(mesh(), from, { ip: ipOf(node), port: 15_020 });
  client.socket.write('GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n');
  await client.ended();
  client.socket.destroy();
  return { client, body: client.text };
}

for (const node of ['n1', 'n2']) {
  test(`a captured scraper reads the metrics of the agent of ${node} through HBONE`, privileged, async () => {
    const { client, body } = await scrape('client', node);
    assert.match(body, /^HTTP\/1\.1 200 /);

    const outbound = await mesh().agent('n1').access('outbound', { 'src.addr': client.address });
    assert.equal(outbound['dst.addr'], `${ipOf(node)}:15008`);
    assert.equal(outbound['dst.identity'], AGENT);
    const inbound = await mesh()
      .agent(node)
      .access('inbound', { 'dst.hbone_addr': `${ipOf(node)}:15020` });
    assert.deepEqual(
      [inbound['src.identity'], inbound['dst.identity'], inbound['error']],
      [identityOf('client'), AGENT, undefined],
    );
    const again = await scrape('client', node);
    const series = /^istio_tcp_connections_opened_total\{(.*)\} \d+$/gm;
    const labels = [...again.body.matchAll(series)].map(([, text = '']) => text);
    const own = labels.find(
      (text) => text.includes('destination_workload="agent"') && text.includes('reporter="destination"'),
    );
    assert.match(own ?? '', /connection_security_policy="mutual_tls"/);
    assert.match(own ?? '', new RegExp(`destination_principal="${AGENT}"`));
  });
}

test('a scraper outside the mesh reads them in plaintext', privileged, async () => {
  const { body } = await scrape('outside', 'n2');
  assert.match(body, /^HTTP\/1\.1 200 /);
});

test(
  'nobody outside the mesh gets a tunnel to the agent, and the admin port is in no reach of those who do',
  privileged,
  async () => {
    const material = await meshMaterial(mesh(), identityOf('stranger'), { rootsPem: [] });
    await assert.rejects(openTls(mesh(), 'outside', { ip: ipOf('n2'), material, expected: [AGENT] }));
    const client = await dial(mesh(), 'client', { ip: ipOf('n2'), port: 15_000 });
    client.socket.write('GET /config_dump HTTP/1.1\r\nHost: localhost\r\n\r\n');
    assert.equal(await client.ended(), 'reset');
    assert.equal(client.text, '');
    const inbound = await mesh()
      .agent('n2')
      .access('inbound', { 'dst.hbone_addr': `${ipOf('n2')}:15000` });
    assert.equal(inbound['reason'], 'CV-APP-REFUSED');
  },
);

test('the netns of an agent has none of the other listeners of a pod', privileged, async () => {
  for (const port of [15_001, 15_006]) {
    await assert.rejects(mesh().dial('outside', { ip: ipOf('n2'), port }), { code: 'CV-APP-REFUSED' });
  }
});
