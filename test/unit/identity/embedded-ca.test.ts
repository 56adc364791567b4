import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { MeshError } from '../../../src/base/errors.ts';
import type { LogFields, Logger } from '../../../src/base/log.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { createCsr } from '../../../src/identity/csr.ts';
import { EmbeddedCa } from '../../../src/identity/embedded-ca.ts';
import { generateKeyPair } from '../../../src/identity/keys.ts';
import { pemBlocks } from '../../../src/identity/pem.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { readCertificate } from '../../../src/wire/x509-san.ts';
import { meshCa } from '../../support/certs.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const never = new AbortController().signal;

async function temporary(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'culvert-ca-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return join(directory, 'ca');
}

async function leafOf(ca: EmbeddedCa, identity = ID, ttlMs = HOUR_MS): Promise<string[]> {
  const csr = createCsr(identity, await generateKeyPair());
  return [...(await ca.issue(identity, csr, ttlMs, never)).chainPem];
}

function factsOf(pem: string | undefined): ReturnType<typeof readCertificate> {
  return readCertificate(pemBlocks('CERTIFICATE', pem ?? '')[0] ?? Buffer.alloc(0));
}

function recordingLogger(): Logger & { readonly warnings: LogFields[] } {
  const warnings: LogFields[] = [];
  return { warnings, warn: (message, fields) => warnings.push({ message, ...fields }) };
}

test('the first start makes a root and an issuing certificate that only their owner can read', async (t) => {
  const path = await temporary(t);
  using _ca = await EmbeddedCa.open(path, { clock: systemClock, log: silentLogger });

  const names = ['root/cert.pem', 'root/key.pem', 'issuing-1/cert.pem', 'issuing-1/key.pem'];
  for (const name of names) assert.equal((await stat(join(path, name))).mode & 0o777, 0o600, name);
  for (const name of ['.', 'root', 'issuing-1']) assert.equal((await stat(join(path, name))).mode & 0o777, 0o700, name);
  assert.deepEqual(await readdir(path), ['issuing-1', 'root']);
});

test('openssl verifies a chain for server and for client, strictly', async (t) => {
  const path = await temporary(t);
  using ca = await EmbeddedCa.open(path, { clock: systemClock, log: silentLogger });
  const [leaf = '', issuing = ''] = await leafOf(ca);
  await writeFile(join(path, 'leaf.pem'), leaf);
  await writeFile(join(path, 'between.pem'), issuing);

  for (const purpose of ['sslserver', 'sslclient']) {
    const files = [
      '-CAfile',
      join(path, 'root/cert.pem'),
      '-untrusted',
      join(path, 'between.pem'),
      join(path, 'leaf.pem'),
    ];
    assert.match(
      execFileSync('openssl', ['verify', '-x509_strict', '-purpose', purpose, ...files], { encoding: 'utf8' }),
      /OK/,
    );
  }
  const text = execFileSync('openssl', ['x509', '-noout', '-text'], { input: leaf, encoding: 'utf8' });
  assert.match(text, new RegExp(`Subject Alternative Name: critical\n +URI:${ID}\n`));
  assert.match(text, /TLS Web Server Authentication, TLS Web Client Authentication/);
  assert.match(text, /Subject: ?\n/);
});

test('a second start loads the same CA', async (t) => {
  const path = await temporary(t);
  using first = await EmbeddedCa.open(path, { clock: systemClock, log: silentLogger });
  using second = await EmbeddedCa.open(path, { clock: systemClock, log: silentLogger });

  assert.deepEqual(second.rootsPem, first.rootsPem);
  assert.equal((await leafOf(second))[1], (await leafOf(first))[1]);
});

test('agents in several threads that start at once on an empty directory agree on one root and one issuing certificate', async (t) => {
  const path = await temporary(t);
  const source = `
    const { workerData, parentPort } = await import('node:worker_threads');
    const { EmbeddedCa } = await import(workerData.ca);
    const { systemClock: clock } = await import(workerData.clock);
    const ca = await EmbeddedCa.open(workerData.path, { clock, log: {} });
    parentPort.postMessage(ca.rootsPem.join());
    ca[Symbol.dispose]();`;
  const url = (name: string): string => new URL(`../../../src/${name}`, import.meta.url).href;
  const workerData = { path, ca: url('identity/embedded-ca.ts'), clock: url('sys/system-clock.ts') };
  const workers = Array.from({ length: 6 }, () => new Worker(source, { eval: true, workerData }));
  const roots = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as string));

  assert.equal(new Set(roots).size, 1);
  assert.deepEqual(await readdir(path), ['issuing-1', 'root']);
});

test('a leaf is backdated two minutes and never outlives the issuing certificate', async (t) => {
  const path = await temporary(t);
  const clock = new FakeClock();
  using ca = await EmbeddedCa.open(path, { clock, log: silentLogger }, { rootMs: DAY_MS, issuingMs: HOUR_MS });
  const facts = factsOf((await leafOf(ca, ID, DAY_MS))[0]);

  assert.equal(facts.notBeforeMs, clock.wallMs() - 120_000);
  assert.equal(facts.notAfterMs, clock.wallMs() + HOUR_MS);
});

test('serial numbers are positive, of 129 bits, and differ', async (t) => {
  using ca = await EmbeddedCa.open(await temporary(t), { clock: systemClock, log: silentLogger });
  const serials = await Promise.all(Array.from({ length: 20 }, async () => factsOf((await leafOf(ca))[0]).serial));

  assert.equal(new Set(serials).size, 20);
  for (const serial of serials) assert.equal(BigInt(serial).toString(2).length, 129);
});

test('a request for another identity than the caller named, or for no mesh identity, is refused', async (t) => {
  using ca = await EmbeddedCa.open(await temporary(t), { clock: systemClock, log: silentLogger });
  const keys = await generateKeyPair();

  await assert.rejects(ca.issue(ID, createCsr('spiffe://cluster.local/ns/x/sa/y', keys), HOUR_MS, never), {
    code: 'CV-CA',
  });
  const { publicKey } = keys;
  assert.throws(() => ca.sign({ identity: 'https://example.org/', publicKey, ttlMs: HOUR_MS }), { code: 'CV-CA' });
});

test('a request that asks for two identities, one of them allowed, is refused', async (t) => {
  using ca = await EmbeddedCa.open(await temporary(t), { clock: systemClock, log: silentLogger });
  const csr = execFileSync(
    'openssl',
    [
      ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '/dev/null'],
      ...['-subj', '/', '-addext', `subjectAltName=URI:${ID},URI:spiffe://cluster.local/ns/shop/sa/admin`],
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );

  await assert.rejects(ca.issue(ID, csr, HOUR_MS, never), { code: 'CV-CA', message: /this identity alone/ });
});

const broken: readonly {
  readonly name: string;
  readonly damage: (path: string) => Promise<unknown>;
  readonly message: RegExp;
}[] = [
  {
    name: 'a root certificate that is no PEM',
    damage: (path) => writeFile(join(path, 'root/cert.pem'), 'hello'),
    message: /root\/cert\.pem: no PEM block/,
  },
  {
    name: 'a root certificate with a broken body',
    damage: (path) =>
      writeFile(join(path, 'root/cert.pem'), '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'),
    message: /root\/cert\.pem: not strict DER/,
  },
  {
    name: 'a missing certificate beside a key',
    damage: (path) => unlink(join(path, 'root/cert.pem')),
    message: /root\/cert\.pem: ENOENT.*must be a file that the agent can read/,
  },
  {
    name: 'a key that cannot be read',
    damage: async (path) => {
      await unlink(join(path, 'root/key.pem'));
      await mkdir(join(path, 'root/key.pem'));
    },
    message: /root\/key\.pem: EISDIR/,
  },
  {
    name: 'a key that is no key',
    damage: (path) => writeFile(join(path, 'issuing-1/key.pem'), 'hello'),
    message: /issuing-1\/key\.pem: .*restore it from a backup/,
  },
  {
    name: 'an RSA key',
    damage: async (path) => {
      const rsa = execFileSync('openssl', ['genrsa', '2048'], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      await writeFile(join(path, 'root/key.pem'), rsa);
    },
    message: /root\/key\.pem: it is no ECDSA P-256 key/,
  },
  {
    name: 'a key of another certificate',
    damage: async (path) => writeFile(join(path, 'root/key.pem'), await readFile(join(path, 'issuing-1/key.pem'))),
    message: /root\/key\.pem: the key does not belong to .*root\/cert\.pem; restore both/,
  },
  {
    name: 'an issuing certificate of another root',
    damage: async (path) => {
      using _other = await EmbeddedCa.open(`${path}-2`, { clock: systemClock, log: silentLogger });
      await rm(join(path, 'issuing-1'), { recursive: true });
      await rename(join(`${path}-2`, 'issuing-1'), join(path, 'issuing-1'));
    },
    message: /issuing-1\/cert\.pem: it is not signed by .*root\/cert\.pem/,
  },
  {
    name: 'an issuing certificate without its key',
    damage: (path) => unlink(join(path, 'issuing-1/key.pem')),
    message: /issuing-1\/cert\.pem: its key\.pem is missing/,
  },
  {
    name: 'a leaf in place of the root',
    damage: async (path) => {
      const { chainPem } = await (await meshCa()).material(ID);
      await unlink(join(path, 'root/key.pem'));
      await writeFile(
        join(path, 'root/cert.pem'),
        chainPem.slice(0, chainPem.indexOf('-----END')) + '-----END CERTIFICATE-----\n',
      );
    },
    message: /root\/cert\.pem: it is no CA certificate/,
  },
  {
    name: 'a file in place of the directory',
    damage: async (path) => {
      await rm(path, { recursive: true });
      await writeFile(path, '');
    },
    message: /must be a directory/,
  },
];

for (const { name, damage, message } of broken) {
  test(`start fails with CV-CA and changes nothing on ${name}`, async (t) => {
    const path = await temporary(t);
    (await EmbeddedCa.open(path, { clock: systemClock, log: silentLogger }))[Symbol.dispose]();
    await damage(path);
    const before = await contents(path);

    await assert.rejects(EmbeddedCa.open(path, { clock: systemClock, log: silentLogger }), (error) => {
      assert(error instanceof MeshError);
      assert.equal(error.code, 'CV-CA');
      assert.match(error.message, message);
      return true;
    });
    assert.deepEqual(await contents(path), before);
  });
}

test('an expired root is refused with the file and the cure', async (t) => {
  const path = await temporary(t);
  const clock = new FakeClock();
  (await EmbeddedCa.open(path, { clock, log: silentLogger }, { rootMs: DAY_MS, issuingMs: DAY_MS }))[Symbol.dispose]();
  clock.advance(DAY_MS + 1_000);

  await assert.rejects(EmbeddedCa.open(path, { clock, log: silentLogger }), {
    code: 'CV-CA',
    message: /root\/cert\.pem: it has expired; restore it from a backup, or move the directory away/,
  });
});

test('an issuing certificate whose root key is elsewhere serves until it expires, then is refused', async (t) => {
  const path = await temporary(t);
  const clock = new FakeClock();
  const lifetimes = { rootMs: 10 * DAY_MS, issuingMs: DAY_MS };
  (await EmbeddedCa.open(path, { clock, log: silentLogger }, lifetimes))[Symbol.dispose]();
  await unlink(join(path, 'root/key.pem'));

  clock.advance(DAY_MS - 1_000);
  using ca = await EmbeddedCa.open(path, { clock, log: silentLogger }, lifetimes);
  assert.equal((await leafOf(ca)).length, 2);
  clock.advance(2_000);
  await assert.rejects(leafOf(ca), { code: 'CV-CA', message: /issuing-1\/cert\.pem has expired/ });
  await assert.rejects(EmbeddedCa.open(path, { clock, log: silentLogger }), {
    code: 'CV-CA',
    message: /put .*key\.pem there/,
  });
});

test('the issuing certificate is renewed at half of its life, and the old file stays', async (t) => {
  const path = await temporary(t);
  const clock = new FakeClock();
  const lifetimes = { rootMs: 100 * DAY_MS, issuingMs: 10 * DAY_MS };
  using ca = await EmbeddedCa.open(path, { clock, log: silentLogger }, lifetimes);
  using other = await EmbeddedCa.open(path, { clock, log: silentLogger }, lifetimes);
  const [, before] = await leafOf(ca);

  clock.advance(5 * DAY_MS);
  await Promise.all([ca.refresh(), other.refresh()]);
  const [, after] = await leafOf(ca);

  assert.notEqual(after, before);
  assert.equal((await leafOf(other))[1], after);
  assert.equal(factsOf(after).notAfterMs, clock.wallMs() + 10 * DAY_MS);
  // The clock also woke the looks of both at their files: one of those may be about to give its own copy up.
  const kept = (await readdir(path)).filter((name) => !name.includes('.new-'));
  assert.deepEqual(kept, ['issuing-1', 'issuing-2', 'root']);
  assert.equal(await readFile(join(path, 'issuing-1/cert.pem'), 'utf8'), before);
});

test('an extra root that is dropped in is trusted at the next look, and gone again when it is removed', async (t) => {
  const path = await temporary(t);
  const log = recordingLogger();
  using ca = await EmbeddedCa.open(path, { clock: new FakeClock(), log });
  const other = await meshCa('other');
  const own = ca.rootsPem;
  const seen: (readonly string[])[] = [];
  using _subscription = ca.subscribeRoots((roots) => seen.push(roots));

  await mkdir(join(path, 'extra-roots'));
  await writeFile(join(path, 'extra-roots/other.pem'), `# the other mesh\n${other.rootPem}`);
  await writeFile(join(path, 'extra-roots/broken.pem'), 'hello');
  await ca.refresh();
  await unlink(join(path, 'extra-roots/other.pem'));
  await ca.refresh();

  assert.deepEqual(seen, [[...own, other.rootPem], own]);
  assert.match(String(log.warnings[0]?.['error']), /extra-roots\/broken\.pem: no PEM block/);
  assert.equal(log.warnings[0]?.['reason'], 'CV-CA');
});

test('files that are damaged while the agent runs leave the last good CA in use, with one warning', async (t) => {
  const path = await temporary(t);
  const log = recordingLogger();
  using ca = await EmbeddedCa.open(path, { clock: new FakeClock(), log });
  const [, before] = await leafOf(ca);
  await rename(join(path, 'root'), join(path, 'away'));

  await ca.refresh();
  await ca.refresh();

  assert.equal((await leafOf(ca))[1], before);
  assert.equal(log.warnings.length, 1);
  assert.match(String(log.warnings[0]?.['error']), /root: it is gone/);
  assert.equal(log.warnings[0]?.['reason'], 'CV-CA');
  assert.deepEqual(await readdir(path), ['away', 'issuing-1']);
});

test('a root replaced by the operator is taken over while the agent runs', async (t) => {
  const path = await temporary(t);
  const clock = new FakeClock();
  using ca = await EmbeddedCa.open(path, { clock, log: silentLogger });
  using other = await EmbeddedCa.open(`${path}-2`, { clock, log: silentLogger });
  await rename(path, `${path}-old`);
  await rename(`${path}-2`, path);
  await ca.refresh();

  assert.deepEqual(ca.rootsPem, other.rootsPem);
  assert.equal((await leafOf(ca))[1], await readFile(join(path, 'issuing-1/cert.pem'), 'utf8'));
});

test('a key that others can read is reported', async (t) => {
  const path = await temporary(t);
  (await EmbeddedCa.open(path, { clock: systemClock, log: silentLogger }))[Symbol.dispose]();
  await chmod(join(path, 'root/key.pem'), 0o644);
  const log = recordingLogger();
  using _ca = await EmbeddedCa.open(path, { clock: systemClock, log });

  assert.match(String(log.warnings[0]?.['message']), /can be read by other users/);
});

/** Every file below `path` with its content. */
async function contents(path: string): Promise<Record<string, string>> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Object.fromEntries(await Promise.all(files.map(async (file) => [file, await readFile(file, 'utf8')])));
}

test('a root that is added while the files are being read is trusted at the next look', async (t) => {
  const path = await temporary(t);
  const roots = join(path, 'extra-roots');
  const { rootPem } = await meshCa('extra');
  // The warning about the first file comes when the directory was listed already.
  const log: Logger = { warn: () => writeFileSync(join(roots, 'b.pem'), rootPem) };
  using ca = await EmbeddedCa.open(path, { clock: new FakeClock(), log });
  await mkdir(roots);
  await writeFile(join(roots, 'a.pem'), 'no certificate');

  await ca.refresh();
  await ca.refresh();

  assert.deepEqual(ca.rootsPem.slice(1), [rootPem]);
});
