import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { meshCa } from '../../support/certs.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { HboneClient, meshMaterial, serverSerial } from '../../support/mesh-hbone.ts';
import { ask, dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { until } from '../../support/until.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
/** Renewed about every four seconds. */
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] }, env: { SECRET_TTL: '16s' } });

async function target() {
  const material = await meshMaterial(mesh(), identityOf('client'));
  return { ip: mesh().pod('server').ip, material, expected: [identityOf('server')] };
}

test(
  'a renewed certificate serves the very next handshake, and tunnels made with the old one go on',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    using open = await dial(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8080 });
    await open.exchange('before');
    const first = await serverSerial(mesh(), 'outside', await target());
    const renewals = async () =>
      (await metricsOf(mesh().agent('n2')))('culvert_certificate_renewals_total', { result: 'ok' });
    const before = await renewals();
    await until('the certificate is renewed', async () => (await renewals()) > before);
    const second = await serverSerial(mesh(), 'outside', await target());
    assert.notEqual(second, first);
    assert.equal(await open.exchange('after'), 'beforebeforeafterafter');
  },
);

test('a client of another CA is refused until its root is added, and from then on served', privileged, async () => {
  const foreign = await meshCa('foreign');
  const { rootsPem } = await meshMaterial(mesh(), identityOf('client'));
  const material = await foreign.material(identityOf('client'), { rootsPem });
  using _app = mesh().serve('server', 8081, doubling);
  const attempt = async (): Promise<number> => {
    using tunnel = await HboneClient.open(mesh(), 'outside', { ...(await target()), material });
    return await tunnel.status(`${mesh().pod('server').ip}:8081`);
  };
  await assert.rejects(attempt());
  const isUntrusted = (line: Readonly<Record<string, unknown>>): boolean => line['reason'] === 'CV-PEER-CERT';
  const line = await mesh().agent('n2').line(isUntrusted, 'refusal of a foreign certificate');
  assert.match(String(line['error']), /not signed by a trusted root|root that is not trusted/);

  const folder = join(mesh().caFolder, 'extra-roots');
  mkdirSync(folder);
  writeFileSync(join(folder, 'foreign.pem'), foreign.rootPem);
  await until('it is served', async () => (await attempt().catch(() => undefined)) === 200);
  assert.equal(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8081 }, 'own'), 'ownown');
});
