import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LogFields } from '../../../src/base/log.ts';
import { CertificateFiles } from '../../../src/identity/certificate-files.ts';
import { CertificateManager } from '../../../src/identity/certificate-manager.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { type MeshCa, meshCa } from '../../support/certs.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const START_MS = new FakeClock().wallMs();
const LIFE = { notBeforeMs: START_MS - HOUR_MS, notAfterMs: START_MS + 24 * HOUR_MS };
const ca = await meshCa();

const CERT_MANAGER = { chain: 'tls.crt', key: 'tls.key', roots: 'ca.crt' } as const;
const ISTIO = { chain: 'cert-chain.pem', key: 'key.pem', roots: 'root-cert.pem' } as const;

/** One that may be wrong. */
class SkewedClock extends FakeClock {
  skewMs = 0;

  override wallMs(): number {
    return super.wallMs() + this.skewMs;
  }
}

/** A directory of certificates, the provider that reads it, and a manager behind that. */
class World implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'culvert-files-'));
  readonly clock = new SkewedClock();
  readonly lines: { readonly message: string; readonly fields: LogFields }[] = [];
  readonly announced: string[] = [];
  problems = 0;
  readonly #open = new DisposableStack();

  constructor() {
    this.#open.defer(() => rmSync(this.folder, { recursive: true }));
  }

  start(): CertificateFiles {
    const write = (message: string, fields: LogFields = {}) => void this.lines.push({ message, fields });
    const files = new CertificateFiles(this.folder, {
      clock: this.clock,
      log: { warn: write },
      onProblem: () => void (this.problems += 1),
    });
    this.#open.use(files);
    this.#open.use(files.subscribeRenewals((identities) => this.announced.push(...identities)));
    return files;
  }

  manager(provider: CertificateFiles): CertificateManager {
    const random = { next: () => 0.5, hex: () => '' };
    return this.#open.use(new CertificateManager({ provider, clock: this.clock, random, log: {}, ttlMs: HOUR_MS }));
  }

  /** Writes a pair into `directory` below the folder. */
  write(directory: string, material: TlsMaterial, names: typeof CERT_MANAGER | typeof ISTIO = CERT_MANAGER): void {
    const path = join(this.folder, directory);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, names.chain), material.chainPem);
    writeFileSync(join(path, names.key), material.keyPem, { mode: 0o600 });
    writeFileSync(join(path, names.roots), material.rootsPem.join(''));
  }

  path(...names: readonly string[]): string {
    return join(this.folder, ...names);
  }

  /** Lets the watch look at the files. */
  look(): void {
    this.clock.advance(10_000);
  }

  get errors(): string[] {
    return this.lines.map(({ fields }) => String(fields['error']));
  }

  [Symbol.dispose](): void {
    this.#open.dispose();
  }
}

function material(identity: string, from: MeshCa = ca, life = LIFE): Promise<TlsMaterial> {
  return from.material(identity, life);
}

async function issued(files: CertificateFiles, identity: string): Promise<string> {
  return (await files.issue(identity)).chainPem.join('');
}

for (const [layout, names] of [
  ['cert-manager', CERT_MANAGER],
  ['Istio', ISTIO],
] as const) {
  test(`files named as ${layout} names them serve the identity in the certificate`, async () => {
    using world = new World();
    const cart = await material(CART);
    world.write('', cart, names);
    const manager = world.manager(world.start());
    const held = await manager.get(CART);

    assert.deepEqual(
      [held.keyPem, held.chainPem, held.rootsPem, held.identity],
      [cart.keyPem, cart.chainPem, cart.rootsPem, CART],
    );
  });
}

test('of several pairs for one identity the newest serves, and when that has expired another one that has not', async () => {
  using world = new World();
  const long = await material(CART, ca, { ...LIFE, notAfterMs: START_MS + 5 * MINUTE_MS });
  const short = await material(CART, ca, { notBeforeMs: START_MS, notAfterMs: START_MS + MINUTE_MS });
  world.write('long', long);
  world.write('short', short);
  const files = world.start();
  assert.equal(await issued(files, CART), short.chainPem);
  world.clock.advance(2 * MINUTE_MS);
  assert.equal(await issued(files, CART), long.chainPem);
  world.clock.advance(5 * MINUTE_MS);
  await assert.rejects(issued(files, CART), { message: /short.* it expired at .* and was not renewed/ });
});

test('a pair that was refused as expired serves once the clock of the node is set right', async () => {
  using world = new World();
  const cart = await material(CART);
  world.write('cart', cart);
  world.clock.skewMs = 30 * 24 * HOUR_MS;
  const files = world.start();
  await assert.rejects(issued(files, CART), { message: /it has expired already/ });
  world.clock.skewMs = 0;
  world.look();
  assert.equal(await issued(files, CART), cart.chainPem);
  assert.equal(world.problems, 1);
});

test('one directory per identity: its name does not matter, and a new one is found', async () => {
  using world = new World();
  const [cart, web] = [await material(CART), await material(WEB)];
  world.write('anything', cart);
  const files = world.start();
  assert.equal(await issued(files, CART), cart.chainPem);
  await assert.rejects(issued(files, WEB), {
    code: 'CV-CERT-FILES',
    message: /no certificate for this identity below/,
  });

  world.write('web', web, ISTIO);
  world.look();
  assert.equal(await issued(files, WEB), web.chainPem);
  assert.deepEqual(world.announced, [WEB]);
});

test('the swap of a mounted volume is taken whole, and the manager serves the new certificate', async () => {
  using world = new World();
  const version = (name: string, content: TlsMaterial): void => {
    world.write(name, content);
    symlinkSync(name, world.path('..data_tmp'));
    renameSync(world.path('..data_tmp'), world.path('..data'));
  };
  const [first, second] = [await material(CART), await material(CART)];
  version('..1', first);
  for (const name of Object.values(CERT_MANAGER)) symlinkSync(`..data/${name}`, world.path(name));
  const manager = world.manager(world.start());
  assert.equal((await manager.get(CART)).chainPem, first.chainPem);

  const { promise: renewed, resolve } = Promise.withResolvers<void>();
  using _subscription = manager.subscribe(() => resolve());
  version('..2', second);
  world.look();
  await renewed;
  assert.equal((await manager.get(CART)).chainPem, second.chainPem);
});

const broken: readonly {
  readonly name: string;
  readonly harm: (world: World, next: TlsMaterial) => Promise<void> | void;
  readonly why: RegExp;
}[] = [
  {
    name: 'a key of another issuance',
    harm: (world, next) => writeFileSync(world.path('tls.key'), next.keyPem),
    why: /cannot use .*\/tls\.key: it does not belong to the first certificate in .*\/tls\.crt/,
  },
  {
    name: 'a certificate of another issuance',
    harm: (world, next) => writeFileSync(world.path('tls.crt'), next.chainPem),
    why: /cannot use .*\/tls\.key: it does not belong to/,
  },
  {
    name: 'a half-written certificate',
    harm: (world, next) => writeFileSync(world.path('tls.crt'), next.chainPem.slice(0, 300)),
    why: /cannot use .*\/tls\.crt: broken or too many PEM blocks/,
  },
  {
    name: 'a half-written key',
    harm: (world, next) => writeFileSync(world.path('tls.key'), next.keyPem.slice(0, 60)),
    why: /cannot use .*\/tls\.key: /,
  },
  {
    name: 'missing roots',
    harm: (world) => unlinkSync(world.path('ca.crt')),
    why: /cannot use .*\/ca\.crt: ENOENT/,
  },
  {
    name: 'roots the chain does not lead to',
    harm: async (world) => writeFileSync(world.path('ca.crt'), (await meshCa('other')).rootPem),
    why: /cannot use .*\/tls\.crt: .*does not end at the roots/,
  },
  {
    name: 'a certificate that has expired',
    harm: async (world) => world.write('', await material(CART, ca, { ...LIFE, notAfterMs: START_MS - 1 })),
    why: /cannot use .*\/tls\.crt: .*it has expired already/,
  },
  {
    name: 'a certificate without a mesh identity',
    harm: async (world) => world.write('', await material('spiffe://cluster.local/web')),
    why: /cannot use .*\/tls\.crt: it names no mesh identity/,
  },
  {
    name: 'a file of 2 MiB',
    harm: (world) => writeFileSync(world.path('tls.crt'), 'x'.repeat(2 ** 21)),
    why: /cannot use .*\/tls\.crt: .* is over 1048576 bytes/,
  },
];

for (const { name, harm, why } of broken) {
  test(`${name}: refused with the file, said once; the last good pair serves until a good one comes`, async () => {
    using world = new World();
    const [first, second] = [await material(CART), await material(CART)];
    world.write('', first);
    const files = world.start();
    await harm(world, second);
    world.look();
    world.look();

    assert.equal(await issued(files, CART), first.chainPem);
    assert.deepEqual([world.errors.length, world.problems], [1, 1], world.errors.join('\n'));
    assert.match(world.errors[0] ?? '', why);
    assert.equal(world.lines[0]?.message, 'certificate file refused; the last good one stays');

    world.write('', second);
    world.look();
    assert.equal(await issued(files, CART), second.chainPem);
    assert.deepEqual(world.announced, [CART]);
  });
}

test('broken from the start: the reason is in the error for the identity', async () => {
  using world = new World();
  const cart = await material(CART);
  world.write('', cart);
  unlinkSync(world.path('tls.key'));
  const manager = world.manager(world.start());

  await assert.rejects(manager.get(CART), {
    code: 'CV-CERT-UNAVAILABLE',
    message: /no certificate for this identity below .*; cannot use .*\/tls\.key: ENOENT/,
  });
});

test('files that nobody renews serve to their last second, then the error names them', async () => {
  using world = new World();
  const cart = await material(CART, ca, { ...LIFE, notAfterMs: START_MS + 5 * MINUTE_MS });
  world.write('', cart);
  const manager = world.manager(world.start());
  await manager.get(CART);
  world.clock.advance(5 * MINUTE_MS);
  assert.equal((await manager.get(CART)).chainPem, cart.chainPem);
  world.clock.advance(1);

  await assert.rejects(manager.get(CART), { message: /cannot use .*tls\.crt: it expired at .* and was not renewed/ });
});

test('a directory that is gone takes its certificate along; what the manager holds serves on', async () => {
  using world = new World();
  const cart = await material(CART);
  world.write('cart', cart);
  const files = world.start();
  const manager = world.manager(files);
  await manager.get(CART);
  rmSync(world.path('cart'), { recursive: true });
  world.look();

  await assert.rejects(issued(files, CART), { code: 'CV-CERT-FILES' });
  assert.equal((await manager.get(CART)).chainPem, cart.chainPem);
});

test('of two certificates for one identity the newer is served', async () => {
  using world = new World();
  const older = await material(CART);
  const newer = await material(CART, ca, { ...LIFE, notBeforeMs: START_MS - 1_000 });
  world.write('a', newer);
  world.write('b', older);

  assert.equal(await issued(world.start(), CART), newer.chainPem);
});

test('a key that others can read is warned of once', async () => {
  using world = new World();
  world.write('', await material(CART));
  chmodSync(world.path('tls.key'), 0o644);
  world.start();
  world.write('', await material(CART));
  world.look();

  assert.deepEqual(
    world.lines.map(({ message, fields }) => [message, fields['file']]),
    [['this key can be read by other users; give it mode 0600', world.path('tls.key')]],
  );
});

test('a directory that is not there is reported, and read as soon as it is', async () => {
  using world = new World();
  rmSync(world.folder, { recursive: true });
  const files = world.start();
  assert.match(world.errors[0] ?? '', /ENOENT/);
  const cart = await material(CART);
  world.write('', cart);
  world.look();

  assert.equal(await issued(files, CART), cart.chainPem);
});
