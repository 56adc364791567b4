import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCsr } from '../../../src/identity/csr.ts';
import { generateKeyPair, privateKeyPem } from '../../../src/identity/keys.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { AGENT_TOKEN, CaServer } from '../../support/ca-server.ts';
import { identityOf, meshForFile } from '../../support/mesh.ts';
import { HboneClient } from '../../support/mesh-hbone.ts';
import { dial, doubling } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';
import { until } from '../../support/until.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };
/** Renewed after a quarter of it, since the half counts from two minutes before it was issued. */
const LIFETIME_MS = 20_000;
const folder = mkdtempSync(join(tmpdir(), 'culvert-ca-outage-'));
const path = join(folder, 'ca.sock');
const ca = skipWithoutRoot === false ? await CaServer.start({ listen: { kind: 'unix', path } }) : undefined;
after(async () => {
  await ca?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});
const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] },
  certificateEnv: () => ({
    CA_ADDRESS: `unix://${path}`,
    AUTH_TOKEN: AGENT_TOKEN,
    SECRET_TTL: `${LIFETIME_MS / 1_000}s`,
  }),
});

/** A client of the mesh whose own certificate lasts. */
async function lastingMaterial(identity: string): Promise<TlsMaterial> {
  const keys = await generateKeyPair();
  const never = new AbortController().signal;
  const { chainPem, rootsPem } = await (ca as CaServer).ca.issue(identity, createCsr(identity, keys), 3_600_000, never);
  const keyPem = privateKeyPem(keys.privateKey);
  return { identity, keyPem, chainPem: chainPem.join(''), rootsPem, serial: 'lasting', notAfterMs: Infinity };
}

async function renewals(node: string, result: 'ok' | 'failed'): Promise<number> {
  return (await metricsOf(mesh().agent(node)))('culvert_certificate_renewals_total', { result });
}

test(
  'the CA is away for more than half of a lifetime: no connection ends, none is refused, and renewal goes on after it',
  privileged,
  async () => {
    using _app = mesh().serve('server', 8080, doubling);
    const to = { ip: mesh().pod('server').ip, port: 8080 };
    using open = await dial(mesh(), 'client', to);
    await open.exchange('before');
    const target = {
      ip: to.ip,
      material: await lastingMaterial(identityOf('client')),
      expected: [identityOf('server')],
    };
    const before = await renewals('n2', 'ok');
    await until('the certificate is renewed', async () => (await renewals('n2', 'ok')) > before);
    await ca?.suspend();
    const awayMs = Date.now();

    const failures: string[] = [];
    let handshakes = 0;
    const knock = async (): Promise<void> => {
      try {
        using tunnel = await HboneClient.open(mesh(), 'outside', target);
        assert.equal(await tunnel.status(`${to.ip}:8080`), 200);
        handshakes += 1;
      } catch (error) {
        failures.push(String(error));
      }
      await sleep(100);
    };
    while (Date.now() - awayMs < LIFETIME_MS * 0.56) await knock();
    await ca?.resume();
    const during = await renewals('n2', 'ok');
    await until('the certificate is renewed again', async () => {
      await knock();
      return (await renewals('n2', 'ok')) > during;
    });

    assert.deepEqual(failures, []);
    // A machine that does other things too does a few a second.
    assert(handshakes > 5, `only ${handshakes} handshakes`);
    assert.equal(await open.exchange('after'), 'beforebeforeafterafter');
    const metric = await metricsOf(mesh().agent('n2'));
    const noticed = metric('culvert_certificate_failures_total', { reason: 'CV-CA-UNREACHABLE' });
    assert(noticed > 0, 'the outage was not counted');
    assert.equal(metric('culvert_certificate_renewals_total', { result: 'failed' }), noticed);
    const line = await mesh()
      .agent('n2')
      .line(({ message }) => message.startsWith('certificate renewal failed'), 'line of the failed renewal');
    assert.match(line.message, /retaining existing valid certificate until/);
    assert.equal(line['reason'], 'CV-CA-UNREACHABLE');
    await mesh()
      .agent('n2')
      .line(({ message }) => message === 'certificates are issued again', 'line of the recovery');
  },
);
