/** Real agents, each with another source of certificates, none of which was written here. */
import assert from 'node:assert/strict';
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import type { LogLine } from '../../support/agent-process.ts';
import { identityOf, meshForFile, type TestMesh } from '../../support/mesh.ts';
import { serverSerial } from '../../support/mesh-hbone.ts';
import { ask, doubling } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { OpensslCa } from '../../support/openssl-ca.ts';
import { type Served, serveIstioCa, serveWorkloadApi, skipWithoutGrpc } from './authority.ts';

const privileged = { skip: skipWithoutRoot || skipWithoutGrpc, timeout: 90_000 };
const PODS = ['by-istio', 'by-spiffe', 'by-files'] as const;
const ca = new OpensslCa();
const client = ca.leaf(identityOf('by-istio'));
const served = new Map<string, Served>();
after(async () => {
  for (const { program } of served.values()) await program[Symbol.asyncDispose]();
  ca[Symbol.dispose]();
});

const mesh = meshForFile({
  nodes: { n1: ['by-istio'], n2: ['by-spiffe'], n3: ['by-files', 'outside'] },
  beforeAgents: async (lab) => {
    if (privileged.skip !== false) return;
    writeVersion(lab, '..1', ca.leaf(identityOf('by-files')));
    for (const name of ['tls.crt', 'tls.key', 'ca.crt']) symlinkSync(`..data/${name}`, join(certDir(lab), name));
    served.set('n1', await serveIstioCa(lab, 'n1', ca));
    served.set('n2', await serveWorkloadApi(lab, 'n2', ca, [identityOf('by-spiffe')]));
  },
  certificateEnv: (lab, node) => served.get(node)?.env ?? { CULVERT_CERT_DIR: certDir(lab) },
});

function certDir({ lab }: TestMesh): string {
  return join(lab.folder, 'certificates');
}

/** As the kubelet swaps the contents of a volume. */
function writeVersion(lab: TestMesh, name: string, { chainPem, keyPem, rootsPem }: TlsMaterial): void {
  const folder = join(certDir(lab), name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'tls.crt'), chainPem);
  writeFileSync(join(folder, 'tls.key'), keyPem, { mode: 0o600 });
  writeFileSync(join(folder, 'ca.crt'), rootsPem.join(''));
  symlinkSync(name, join(certDir(lab), '..data_tmp'));
  renameSync(join(certDir(lab), '..data_tmp'), join(certDir(lab), '..data'));
}

/** Serial of what port 15008 of `pod` presents now. */
async function serialOf(pod: string): Promise<string> {
  const to = { ip: mesh().pod(pod).ip, material: client, expected: [identityOf(pod)] };
  return await serverSerial(mesh(), 'outside', to);
}

/** Waits until what the pod presents has changed, after a line for which `test` holds. */
async function renewed(pod: string, node: string, test: (line: LogLine) => boolean, act: () => void): Promise<void> {
  const before = await serialOf(pod);
  const mark = mesh().agent(node).lines.length;
  act();
  await mesh().agent(node).line(test, `renewal for ${pod}`, mark);
  // The line says that it was received; the manager takes it over in the next turns.
  for (let looks = 0; (await serialOf(pod)) === before; looks++) assert(looks < 1_000, 'the old certificate stays');
}

test('certificates of Istio’s CA, of the Workload API and of files trust each other', privileged, async () => {
  for (const to of PODS) {
    using _app = mesh().serve(to, 8080, doubling);
    for (const from of PODS) {
      if (from === to) continue;
      assert.equal(await ask(mesh(), from, { ip: mesh().pod(to).ip, port: 8080 }, 'hello'), 'hellohello');
    }
  }
});

test('the CA was asked as ztunnel asks, and openssl verifies the request', privileged, async () => {
  const { event: _event, ...request } = (await served.get('n1')?.program.event('request')) ?? { event: '' };

  assert.deepEqual(request, {
    identity: identityOf('by-istio'),
    seconds: 86_400,
    authorization: 'Bearer good.token',
    clusterid: 'Kubernetes',
    subject: '',
    names: `URI:${identityOf('by-istio')}`,
  });
  const asked = served.get('n1')?.program.events.filter(({ event }) => event === 'request') ?? [];
  assert.equal(asked.length, 1, 'one request for one identity');
});

test('an SVID that the Workload API rotates serves the next handshake', privileged, async () => {
  await renewed(
    'by-spiffe',
    'n2',
    ({ message }) => message === 'SVIDs received',
    () => served.get('n2')?.program.order({ order: 'rotate' }),
  );
});

test('a certificate that is swapped on disk serves the next handshake', privileged, async () => {
  await renewed(
    'by-files',
    'n3',
    ({ message }) => message === 'certificate file loaded',
    () => writeVersion(mesh(), '..2', ca.leaf(identityOf('by-files'))),
  );
});

test('the command line names each source', privileged, async () => {
  const sources = [];
  for (const node of ['n1', 'n2', 'n3']) {
    const { body } = await mesh().agent(node).get('/certificates');
    const view = JSON.parse(body) as { source: string; identities: { identity: string; state: string }[] };
    sources.push(view.source.replace(/(?<=unix:\/\/|files ).*\//, ''));
    assert.deepEqual(
      view.identities.map(({ state }) => state),
      ['Available'],
    );
  }

  assert.deepEqual(sources, [
    'Istio CA https://localhost:15012',
    'Workload API unix://spiffe-n2.sock',
    'certificate files certificates',
  ]);
});
