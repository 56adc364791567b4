import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { CertificateManager } from '../../../src/identity/certificate-manager.ts';
import type { CertificateProvider } from '../../../src/identity/certificate-provider.ts';
import { CertificateVault, type KeptCertificate } from '../../../src/identity/certificate-vault.ts';
import { EmbeddedCa } from '../../../src/identity/embedded-ca.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const DAY_MS = 86_400_000;
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';

/** A node whose agent starts again and again, and a CA that can be away. */
class Node implements Disposable {
  readonly clock = new FakeClock();
  readonly directory = mkdtempSync(join(tmpdir(), 'culvert-vault-'));
  readonly lines: string[] = [];
  requests = 0;
  isCaAway = false;

  start(inherited?: readonly KeptCertificate[]): CertificateManager & { readonly vault: CertificateVault } {
    const log = { warn: (message: string) => this.lines.push(message) };
    const vault = CertificateVault.open(join(this.directory, 'snapshot'), { clock: this.clock, log });
    assert(vault !== undefined);
    const random = { next: () => 0.5, hex: () => '' };
    const deps = {
      provider: this.#provider(),
      clock: this.clock,
      random,
      log: silentLogger,
      ttlMs: DAY_MS,
      vault,
      inherited,
    };
    return Object.assign(new CertificateManager(deps), { vault });
  }

  get sealed(): string {
    return join(this.directory, 'snapshot', 'certificates.sealed');
  }

  #provider(): CertificateProvider {
    return {
      title: 'CA',
      issue: async (...question) => {
        this.requests += 1;
        if (this.isCaAway) throw new MeshError('CV-CA', 'the CA is away');
        using ca = await EmbeddedCa.open(join(this.directory, 'ca'), { clock: this.clock, log: silentLogger });
        return await ca.issue(...question);
      },
    };
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true });
  }
}

test('an agent that restarts without a CA presents what it had, to the last second and no longer', async () => {
  using node = new Node();
  let had: unknown;
  {
    using before = node.start();
    had = await before.get(CART);
  }
  node.isCaAway = true;
  {
    using after = node.start();
    assert.deepEqual(await after.get(CART), had);
    assert.equal(node.requests, 1, 'the CA was not even asked');
  }
  node.clock.advance(DAY_MS + 1_000);
  using late = node.start();
  await assert.rejects(late.get(CART), { code: 'CV-CERT-UNAVAILABLE' });
});

test('what nobody asked for between two restarts is still there after the second', async () => {
  using node = new Node();
  {
    using first = node.start();
    await first.get(CART);
    await first.get(WEB);
  }
  {
    using second = node.start();
    await second.get(CART);
    node.clock.advance(DAY_MS / 2);
    await second.get(CART);
  }
  node.isCaAway = true;
  using third = node.start();
  await third.get(WEB);
});

test('no key is readable in the file, and only the owner can read either file', async () => {
  using node = new Node();
  using manager = node.start();
  const { keyPem } = await manager.get(CART);
  manager.vault.flush();
  const content = readFileSync(node.sealed, 'latin1');
  const secret = keyPem.split('\n')[1] ?? '';
  assert(secret.length > 40);
  assert(!content.includes(secret) && !content.includes('cluster.local'));
  for (const file of [node.sealed, join(node.directory, 'snapshot', 'node.key')]) {
    assert.equal(statSync(file).mode & 0o777, 0o600);
  }
});

for (const { name, harm } of [
  { name: 'a changed byte', harm: (file: string) => writeFileSync(file, flipped(readFileSync(file), 40)) },
  { name: 'a file cut short', harm: (file: string) => writeFileSync(file, readFileSync(file).subarray(0, 10)) },
  { name: 'another key', harm: (file: string) => writeFileSync(join(file, '..', 'node.key'), Buffer.alloc(32, 7)) },
]) {
  test(`with ${name} the certificates are asked for anew, and one line says why`, async () => {
    using node = new Node();
    {
      using before = node.start();
      await before.get(CART);
    }
    harm(node.sealed);
    using after = node.start();
    await after.get(CART);
    assert.equal(node.requests, 2);
    assert.deepEqual(node.lines, ['kept certificates cannot be read, new ones are requested']);
  });
}

test('what a former process hands over serves without CA or file, and what nobody uses is forgotten', async () => {
  using node = new Node();
  using before = node.start([]);
  const [cart, web] = [await before.get(CART), await before.get(WEB)];
  const inherited = before.inUse();
  before.keepNoMore();
  node.clock.advance(1_000);
  assert.throws(() => readFileSync(node.sealed), { code: 'ENOENT' });
  node.isCaAway = true;

  using after = node.start(inherited);

  assert.equal((await after.get(CART)).serial, cart.serial);
  after.forgetInherited();
  await assert.rejects(after.get(WEB), { code: 'CV-CERT-UNAVAILABLE' });
  assert.notEqual(web.serial, cart.serial);
});

test('certificates that have another home than a CA do not go from process to process', async () => {
  using node = new Node();
  using manager = node.start();
  await manager.get(CART);
  assert.deepEqual(manager.inUse(), []);
});

test('a directory that cannot be made costs the vault and nothing else', () => {
  using node = new Node();
  writeFileSync(join(node.directory, 'file'), '');
  const log = { warn: (message: string) => node.lines.push(message) };
  assert.equal(CertificateVault.open(join(node.directory, 'file', 'below'), { clock: node.clock, log }), undefined);
  assert.deepEqual(node.lines, ['certificates are not kept on disk']);
});

function flipped(content: Buffer, at: number): Buffer {
  content[at] = (content[at] ?? 0) ^ 1;
  return content;
}

test('what could not be written is said once, and written as soon as the disk takes it', async () => {
  using node = new Node();
  {
    using manager = node.start();
    // In the way of the draft that takes the place of the file.
    rmSync(node.sealed, { force: true });
    mkdirSync(node.sealed);
    await manager.get(CART);
    node.clock.advance(500);
    node.clock.advance(180_000);
    assert.deepEqual(node.lines, ['certificates cannot be kept on disk, trying again']);
    rmdirSync(node.sealed);
    node.clock.advance(60_000);
    assert(existsSync(node.sealed));
  }
  node.isCaAway = true;
  using after = node.start();
  await after.get(CART);
});
