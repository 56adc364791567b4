import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { LogLine } from '../../support/agent-process.ts';
import { identityOf, meshForFile, replaceFile } from '../../support/mesh.ts';
import { meshCrl } from '../../support/mesh-hbone.ts';
import { ask, dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'culvert-crl-'));
after(() => rmSync(folder, { recursive: true }));
const crlPath = join(folder, 'ca-crl.pem');
const mesh = meshForFile({ nodes: { n1: ['client', 'near'], n2: ['server'] }, env: { CRL_PATH: crlPath } });

/** Serial, hex, of the certificate that the agent of `node` holds for `pod`. */
async function serialOf(node: string, pod: string): Promise<string> {
  const { body } = await mesh().agent(node).get('/config_dump');
  const { certificates } = JSON.parse(body) as {
    certificates: { identity: string; certChain: { serialNumber: string }[] }[];
  };
  const serial = certificates.find(({ identity }) => identity === identityOf(pod))?.certChain[0]?.serialNumber;
  return BigInt(serial ?? 0).toString(16);
}

/** Writes a list, and resolves when both agents have taken it. */
async function revoke(...serials: readonly string[]): Promise<void> {
  const marks = mesh().agents.map(({ lines }) => lines.length);
  replaceFile(crlPath, await meshCrl(mesh(), serials));
  const isLoaded = ({ message }: LogLine): boolean => message === 'revocation lists loaded';
  await Promise.all(mesh().agents.map((agent, i) => agent.line(isLoaded, 'line that the list was loaded', marks[i])));
}

const isRevoked = (line: LogLine): boolean => line['reason'] === 'CV-PEER-REVOKED' && 'src.addr' in line;

test('a revoked client is cut off and kept out, another client of that server is not', privileged, async () => {
  using _app = mesh().serve('server', 8080, doubling);
  const to = { ip: mesh().pod('server').ip, port: 8080 };
  using client = await dial(mesh(), 'client', to);
  using near = await dial(mesh(), 'near', to);
  await Promise.all([client.exchange('before'), near.exchange('before')]);

  await revoke(await serialOf('n1', 'client'));

  assert.equal(await client.ended(), 'reset');
  const line = await mesh().agent('n2').line(isRevoked, 'end of the cut connection');
  assert.equal(line['error'], 'connection closed: peer certificate revoked by CRL');
  using again = await dial(mesh(), 'client', to);
  again.socket.write('let me in');
  assert.equal(await again.ended(), 'reset');
  assert.equal(again.bytes, 0);
  assert.equal(await near.exchange('after'), 'beforebeforeafterafter');
  const metric = await metricsOf(mesh().agent('n2'));
  assert(metric('istio_crl_policy_rejections_total', { reporter: 'destination' }) >= 2);

  await revoke();
  assert.equal(await ask(mesh(), 'client', to, 'again'), 'againagain');
});

test('a revoked server is not spoken to, and connections to it are cut', privileged, async () => {
  using _app = mesh().serve('server', 8081, doubling);
  const to = { ip: mesh().pod('server').ip, port: 8081 };
  using client = await dial(mesh(), 'client', to);
  await client.exchange('before');

  await revoke(await serialOf('n2', 'server'));

  assert.equal(await client.ended(), 'reset');
  using again = await dial(mesh(), 'client', to);
  again.socket.write('secret');
  assert.equal(await again.ended(), 'reset');
  const refusal = await mesh()
    .agent('n1')
    .line((line) => isRevoked(line) && line['src.addr'] === again.address, 'refusal of the revoked server');
  assert.equal(refusal['error'], 'tls handshake error: peer certificate is revoked by CRL');
  await revoke();
});
