import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { formatHostPort } from '../../../src/base/ip.ts';
import { identityOf, TestMesh } from '../../support/mesh.ts';
import { ask, dial, doubling, naming } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const HOSTNAME = 'web.demo.svc.cluster.local';

for (const family of ['ipv6', 'dual'] as const) {
  describe(`a mesh on ${family}`, { skip: skipWithoutRoot }, () => {
    let mesh: TestMesh;
    before(async () => {
      const nodes = { n1: ['client'], n2: ['server'], n3: ['outside'] };
      mesh = await TestMesh.start({ nodes, family });
    });
    after(async () => mesh?.[Symbol.asyncDispose]());

    test('captured pods talk through HBONE on every address, and the server sees the client', privileged, async () => {
      using _app = mesh.serve('server', 8080, naming('server'));
      for (const [i, ip] of mesh.pod('server').ips.entries()) {
        using client = await dial(mesh, 'client', { ip, port: 8080 });
        client.socket.end();
        await client.ended();
        assert.equal(client.text, `server sees ${mesh.pod('client').ips[i]}\n`);
        const line = await mesh.agent('n1').access('outbound', { 'src.addr': client.address });
        assert.equal(line['dst.addr'], formatHostPort({ ip, port: 15_008 }));
        assert.equal(line['dst.hbone_addr'], formatHostPort({ ip, port: 8080 }));
        assert.equal(line['dst.identity'], identityOf('server'));
      }
    });

    test('plaintext in and out of the mesh works on every address', privileged, async () => {
      using _server = mesh.serve('server', 8080, naming('server'));
      using _outside = mesh.serve('outside', 8080, naming('outside'));
      for (const [i, ip] of mesh.pod('server').ips.entries()) {
        const seen = `server sees ${mesh.pod('outside').ips[i]}\n`;
        assert.equal(await ask(mesh, 'outside', { ip, port: 8080 }), seen);
      }
      for (const [i, ip] of mesh.pod('outside').ips.entries()) {
        const seen = `outside sees ${mesh.pod('client').ips[i]}\n`;
        assert.equal(await ask(mesh, 'client', { ip, port: 8080 }), seen);
      }
    });

    test('a policy by identity refuses on every address', privileged, async () => {
      const rules = [[[{ principals: [{ Exact: 'cluster.local/ns/demo/sa/nobody' }] }]]];
      const policy = { name: 'nobody', namespace: 'demo', scope: 'Namespace', action: 'Allow', dryRun: false, rules };
      await mesh.update({ policies: [policy] });
      using _app = mesh.serve('server', 8080, doubling);
      for (const ip of mesh.pod('server').ips) {
        for (const from of ['client', 'outside']) {
          using client = await dial(mesh, from, { ip, port: 8080 });
          client.socket.write('hello');
          assert.equal(await client.ended(), 'reset');
          assert.equal(client.bytes, 0, `${from} at ${ip}`);
        }
      }
      await mesh.update({});
    });

    test('a call of the agent’s own ports on loopback is refused', privileged, async () => {
      for (const ip of family === 'dual' ? ['127.0.0.1', '::1'] : ['::1']) {
        using client = await dial(mesh, 'client', { ip, port: 15_001 });
        client.socket.write('hello');
        assert.equal(await client.ended(), 'reset');
        assert.equal(client.bytes, 0);
      }
    });

    test('a service is reached in the family that was dialled', privileged, async () => {
      const vips = family === 'dual' ? ['10.96.0.9', 'fd96::9'] : ['fd96::9'];
      const service = {
        name: 'web',
        namespace: 'demo',
        hostname: HOSTNAME,
        vips: vips.map((vip) => `/${vip}`),
        ports: { 80: 8080 },
      };
      const services = { [`demo/${HOSTNAME}`]: { 80: 8080 } };
      await mesh.update({ services: [service], workloads: mesh.workloads({ server: { services } }) });
      using _app = mesh.serve('server', 8080, naming('server'));
      for (const [i, ip] of vips.entries()) {
        assert.equal(await ask(mesh, 'client', { ip, port: 80 }), `server sees ${mesh.pod('client').ips[i]}\n`);
      }
      await mesh.update({});
    });
  });
}
