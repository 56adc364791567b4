import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LogFields } from '../../../src/base/log.ts';
import { crlBlocks, readCrls } from '../../../src/identity/crl.ts';
import { CrlFile } from '../../../src/identity/crl-file.ts';
import { generateKeyPair } from '../../../src/identity/keys.ts';
import { meshCa } from '../../support/certs.ts';
import { buildCrl, type CrlOptions, crlPem, issuingOf, rootOf } from '../../support/crl.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const ca = await meshCa();
const list = (options: CrlOptions = {}): Buffer => buildCrl(issuingOf(ca), options);
const pem = (options: CrlOptions = {}): string => crlPem(list(options));

/** A CRL file and what is known of it. */
class World implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'culvert-crl-'));
  readonly path = join(this.folder, 'ca-crl.pem');
  readonly clock = new FakeClock();
  readonly lines: { readonly message: string; readonly fields: LogFields }[] = [];
  readonly given: (readonly Uint8Array[])[] = [];
  readonly loads: string[] = [];
  authorities: readonly string[] = [ca.rootPem, ca.issuingPem];
  #file: CrlFile | undefined;
  #next: (() => void) | undefined;

  async open(): Promise<CrlFile> {
    const log = (message: string, fields: LogFields = {}) => void this.lines.push({ message, fields });
    this.#file = await CrlFile.open(this.path, {
      clock: this.clock,
      log: { warn: log, info: log },
      knownAuthorities: () => this.authorities,
      onLists: (ders) => this.given.push(ders),
      onLoad: (outcome) => {
        this.loads.push(outcome);
        this.#next?.();
      },
    });
    return this.#file;
  }

  /** Waits for the next load after the file was looked at again. */
  async changed(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#next = resolve;
    this.clock.advance(10_000);
    await promise;
  }

  get problem(): string | undefined {
    return this.#file?.state.lastError;
  }

  [Symbol.dispose](): void {
    this.#file?.[Symbol.dispose]();
    rmSync(this.folder, { recursive: true });
  }
}

test('PEM with several lists, DER with one, and files without any are read', () => {
  assert.equal(crlBlocks(Buffer.from(`# comment\n${pem()}${pem({ serials: ['01'] })}`)).length, 2);
  assert.equal(crlBlocks(list()).length, 1);
  assert.deepEqual(crlBlocks(Buffer.alloc(0)), []);
  assert.deepEqual(crlBlocks(Buffer.from('\n')), []);
  assert.deepEqual(crlBlocks(Buffer.from(ca.rootPem)), []);
  assert.throws(() => crlBlocks(Buffer.from('<html>')), { code: 'CV-CRL' });
  assert.throws(() => crlBlocks(Buffer.from(pem().slice(0, -30))), { code: 'CV-WIRE-MALFORMED' });
});

test('lists are bounded in number and in entries', async () => {
  const serials = Array.from({ length: 50_001 }, (_, i) => (i + 1).toString(16));
  await assert.rejects(readCrls(Array.from({ length: 257 }, () => list())), {
    message: /more than 256 revocation lists/,
  });
  await assert.rejects(readCrls([list({ serials }), list({ serials })]), { message: /more than 100000 certificates/ });
});

test('a missing file is reported once, and taken as soon as it appears', async () => {
  using world = new World();
  const file = await world.open();
  assert.match(String(file.state.lastError), /ENOENT/);
  writeFileSync(world.path, pem({ serials: ['01', '02'] }));
  await world.changed();

  assert.deepEqual(
    world.given.map((ders) => ders.length),
    [1],
  );
  assert.equal(file.state.revoked, 2);
  assert.deepEqual(
    world.lines.map(({ message }) => message),
    ['revocation lists cannot be used; nothing is revoked meanwhile', 'revocation lists loaded'],
  );
});

for (const [name, content, why] of [
  ['garbage', 'certificate of good conduct', /neither PEM nor DER/],
  ['a list cut short', pem().slice(0, 200), /broken or too many PEM blocks/],
  ['bytes that are no list', crlPem(Buffer.of(0x30, 0x03, 0x02, 0x01, 0x01)), /not strict DER/],
  [
    'a signature that is not of its CA',
    pem({ signWith: (await generateKeyPair()).privateKey }),
    /CN=test issuing.*signature/,
  ],
] as const) {
  test(`${name}: refused with the reason, said once, and the last good list stays`, async () => {
    using world = new World();
    writeFileSync(world.path, pem({ serials: ['01'] }));
    const file = await world.open();
    writeFileSync(world.path, content);
    await world.changed();
    writeFileSync(world.path, `${content} `);
    await world.changed();

    assert.match(String(world.problem), why);
    assert.equal(world.given.length, 1);
    assert.equal(file.state.revoked, 1);
    assert.deepEqual(world.loads, ['ok', 'failed', 'failed']);
    const warnings = world.lines.filter(({ message }) => message.startsWith('revocation lists cannot'));
    assert.deepEqual(
      warnings.map(({ message, fields }) => [message, fields['reason'], fields['path']]),
      [['revocation lists cannot be used; the last good lists stay', 'CV-CRL', world.path]],
    );

    writeFileSync(world.path, pem({ serials: ['01', '02', '03'] }));
    await world.changed();
    assert.deepEqual([world.problem, file.state.revoked], [undefined, 3]);
  });
}

test('an empty file takes every revocation back; a file that vanished takes none back', async () => {
  using world = new World();
  writeFileSync(world.path, pem({ serials: ['01'] }));
  const file = await world.open();
  unlinkSync(world.path);
  await world.changed();
  assert.equal(file.state.revoked, 1);
  writeFileSync(world.path, '');
  await world.changed();

  assert.equal(file.state.revoked, 0);
  assert.deepEqual(
    world.given.map((ders) => ders.length),
    [1, 0],
  );
});

test('the swap of a Kubernetes ConfigMap is seen', async () => {
  using world = new World();
  const version = (name: string, content: string): void => {
    mkdirSync(join(world.folder, name));
    writeFileSync(join(world.folder, name, 'ca-crl.pem'), content);
    symlinkSync(name, join(world.folder, '..data_tmp'));
    renameSync(join(world.folder, '..data_tmp'), join(world.folder, '..data'));
  };
  version('..1', pem({ serials: ['01'] }));
  symlinkSync('..data/ca-crl.pem', world.path);
  const file = await world.open();
  version('..2', pem({ serials: ['01', '02'] }));
  await world.changed();

  assert.equal(file.state.revoked, 2);
});

test('a list of a CA that becomes known later is checked then', async () => {
  using world = new World();
  world.authorities = [];
  const { privateKey } = await generateKeyPair();
  writeFileSync(world.path, pem({ signWith: privateKey }));
  const file = await world.open();
  assert.deepEqual([world.problem, world.lines[0]?.fields['unknown']], [undefined, 1]);
  world.authorities = [ca.issuingPem];
  file.authoritiesChanged();
  file.authoritiesChanged();

  assert.match(String(world.problem), /its signature does not verify/);
  assert.equal(world.lines.length, 2);
});

test('a CA whose key usage does not allow lists is not believed', async () => {
  using world = new World();
  const { leafIssuer, leafPem } = await leafAsIssuer();
  world.authorities = [leafPem];
  writeFileSync(world.path, crlPem(buildCrl(leafIssuer, { serials: ['01'] })));
  await world.open();

  assert.match(String(world.problem), /that CA may not sign lists \(key usage\)/);
  assert.deepEqual(world.given, []);
});

test('a list past its next update is used, and counted as stale', async () => {
  using world = new World();
  writeFileSync(world.path, crlPem(buildCrl(rootOf(ca), { serials: ['01'], nextUpdateMs: Date.UTC(2025, 0, 1) })));
  const file = await world.open();

  assert.equal(file.state.revoked, 1);
  assert.equal(world.lines[0]?.fields['stale'], 1);
});

test('what cannot be read is reported with its path', async () => {
  using world = new World();
  mkdirSync(world.path);
  await world.open();

  assert.match(String(world.problem), /ca-crl\.pem is not a regular file/);
});

async function leafAsIssuer() {
  const { chainPem, keyPem } = await ca.material('spiffe://cluster.local/ns/shop/sa/leaf');
  const leafPem = chainPem.slice(0, chainPem.indexOf('-----END CERTIFICATE-----') + 26);
  const certificateDer = new X509Certificate(leafPem).raw;
  return { leafIssuer: { privateKey: createPrivateKey(keyPem), certificateDer }, leafPem };
}
