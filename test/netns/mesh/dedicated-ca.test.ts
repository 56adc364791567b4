import assert from 'node:assert/strict';
import net from 'node:net';
import { after, test } from 'node:test';
import { createCsr } from '../../../src/identity/csr.ts';
import { generateKeyPair, privateKeyPem } from '../../../src/identity/keys.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { AGENT_TOKEN, CaServer } from '../../support/ca-server.ts';
import { meshForFile } from '../../support/mesh.ts';
import { HboneClient } from '../../support/mesh-hbone.ts';
import { doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { serverCertificate } from '../../support/server-certs.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const CA_PORT = 15_012;
/** Whom the token of the sidecar belongs to: the CA gives it this identity and no other. */
const OWN = 'spiffe://cluster.local/ns/istio-system/sa/ztunnel';
const files = skipWithoutRoot === false ? serverCertificate('DNS:istiod.test') : undefined;
const ca =
  files &&
  (await CaServer.start({
    listen: { kind: 'tls', host: '127.0.0.1', port: 0, certificate: files },
    isImpersonationOff: true,
  }));
after(async () => ca?.[Symbol.asyncDispose]());

const mesh = meshForFile({
  nodes: { n1: ['one'], n2: ['outside'] },
  enrolled: [],
  mesh: (started) => ({
    workloads: started.workloads({ one: { namespace: 'istio-system', serviceAccount: 'ztunnel' } }),
  }),
});

/** The control plane as the pod sees it: somewhere on the network. */
function serveCa(): Disposable {
  return mesh().serve('outside', CA_PORT, (socket) => {
    const upstream = net.connect({ port: ca?.port ?? 0, host: '127.0.0.1' });
    upstream.on('error', () => socket.destroy());
    socket.on('close', () => upstream.destroy());
    socket.pipe(upstream).pipe(socket);
  });
}

async function startSidecar() {
  const address = `${mesh().pod('outside').ip}:${CA_PORT}`;
  const sidecar = mesh().spawnSidecar('one', ['--workload', 'istio-system/one/ztunnel', '--ca-dir', ''], {
    env: {
      CA_ADDRESS: `https://${address}`,
      ALT_CA_HOSTNAME: 'istiod.test',
      CA_ROOT_CA: files?.rootPem ?? '',
      AUTH_TOKEN: AGENT_TOKEN,
      CULVERT_SNAPSHOT: 'false',
    },
  });
  await sidecar.line(({ message }) => message === 'pod captured', 'line that the pod is captured');
  return sidecar;
}

async function clientMaterial(): Promise<TlsMaterial> {
  const identity = 'spiffe://cluster.local/ns/demo/sa/client';
  const keys = await generateKeyPair();
  const never = new AbortController().signal;
  const { chainPem, rootsPem } = await (ca as CaServer).ca.issue(identity, createCsr(identity, keys), 3_600_000, never);
  const keyPem = privateKeyPem(keys.privateKey);
  return { identity, keyPem, chainPem: chainPem.join(''), rootsPem, serial: 'client', notAfterMs: Infinity };
}

test(
  'a sidecar asks the CA in its own name, past its own rules, also after a restart behind them',
  privileged,
  async () => {
    using _ca = serveCa();
    using _app = mesh().serve('one', 8080, doubling);
    const { ip } = mesh().pod('one');
    const target = { ip, material: await clientMaterial(), expected: [OWN] };

    for (const start of ['first', 'behind the rules of the first']) {
      const sidecar = await startSidecar();
      using tunnel = await HboneClient.open(mesh(), 'outside', target);
      assert.equal(await tunnel.status(`${ip}:8080`), 200, start);
      sidecar.kill('SIGKILL');
      await sidecar.exited;
    }

    assert.deepEqual(ca?.outcomes, ['issued', 'issued']);
  },
);
