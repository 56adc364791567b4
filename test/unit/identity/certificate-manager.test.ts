import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import type { Random } from '../../../src/base/random.ts';
import { CertificateManager } from '../../../src/identity/certificate-manager.ts';
import type { CertificateProvider, IssuedCertificate } from '../../../src/identity/certificate-provider.ts';
import { EmbeddedCa } from '../../../src/identity/embedded-ca.ts';
import { IssueQueue } from '../../../src/identity/issue-queue.ts';
import { meshCa } from '../../support/certs.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const DAY_MS = 86_400_000;
/** Validity starts two minutes before it is issued, and the half is counted from there. */
const HALF_MS = DAY_MS / 2 - 60_000;
const noJitter: Random = { next: () => 0.5, hex: () => '' };

const id = (name: string): string => `spiffe://cluster.local/ns/shop/sa/${name}`;

/** A real CA that can be taken down, held up or made to lie, behind the manager under test. */
class Lab implements CertificateProvider, AsyncDisposable {
  readonly title = 'the CA of the lab';
  readonly clock: FakeClock;
  readonly events = new EventEmitter();
  readonly requests: string[] = [];
  readonly lines: string[] = [];
  readonly manager: CertificateManager;
  readonly #ca: EmbeddedCa;
  readonly #directory: string;
  /** How far the manager's wall clock runs ahead. */
  skewMs = 0;
  running = 0;
  mostRunning = 0;
  down: MeshError | undefined;
  gate: Promise<void> | undefined;
  change: (issued: IssuedCertificate) => IssuedCertificate = (issued) => issued;
  readonly #rootListeners = new Set<(roots: readonly string[]) => void>();

  private constructor(directory: string, ca: EmbeddedCa, clock: FakeClock) {
    this.#directory = directory;
    this.#ca = ca;
    this.clock = clock;
    this.manager = new CertificateManager({
      provider: this,
      clock: {
        monotonicMs: () => clock.monotonicMs(),
        wallMs: () => clock.wallMs() + this.skewMs,
        after: (delayMs, fire) => clock.after(delayMs, fire),
      },
      random: noJitter,
      ttlMs: DAY_MS,
      log: { warn: (message) => this.lines.push(message) },
      observer: {
        issued: (identity) => this.events.emit('ended', identity),
        failed: (identity) => this.events.emit('ended', identity),
      },
    });
  }

  static async open(): Promise<Lab> {
    const directory = await mkdtemp(join(tmpdir(), 'culvert-manager-'));
    const clock = new FakeClock();
    const lifetimes = { rootMs: 1000 * DAY_MS, issuingMs: 900 * DAY_MS };
    const ca = await EmbeddedCa.open(join(directory, 'ca'), { clock, log: silentLogger }, lifetimes);
    return new Lab(directory, ca, clock);
  }

  async issue(identity: string, csrPem: string, ttlMs: number, signal: AbortSignal): Promise<IssuedCertificate> {
    this.requests.push(identity);
    this.events.emit('request', identity);
    this.running += 1;
    this.mostRunning = Math.max(this.mostRunning, this.running);
    try {
      await this.gate;
      if (this.down !== undefined) throw this.down;
      return this.change(await this.#ca.issue(identity, csrPem, ttlMs, signal));
    } finally {
      this.running -= 1;
    }
  }

  subscribeRoots(listener: (roots: readonly string[]) => void): Disposable {
    this.#rootListeners.add(listener);
    return { [Symbol.dispose]: () => this.#rootListeners.delete(listener) };
  }

  setRoots(roots: readonly string[]): void {
    for (const listener of this.#rootListeners) listener(roots);
  }

  get roots(): readonly string[] {
    return this.#ca.rootsPem;
  }

  /** Lets `ms` pass and waits for the attempt that is due by then. */
  async pass(ms: number): Promise<void> {
    const ended = once(this.events, 'ended');
    this.clock.advance(ms);
    await ended;
  }

  /** Lets `ms` pass and checks that nothing is asked of the CA. */
  async passQuietly(ms: number): Promise<void> {
    const before = this.requests.length;
    this.clock.advance(ms);
    for (let i = 0; i < 20; i++) await new Promise(setImmediate);
    assert.equal(this.requests.length, before, 'the CA was asked too early');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.manager[Symbol.dispose]();
    this.#ca[Symbol.dispose]();
    // The CA may write there yet, for a test that did not wait for it.
    await rm(this.#directory, { recursive: true, maxRetries: 10 });
  }
}

const outage = new MeshError('CV-CA', 'the CA is on holiday');

test('fifty handshakes for one identity make one request and get the same material', async () => {
  await using lab = await Lab.open();
  const materials = await Promise.all(Array.from({ length: 50 }, () => lab.manager.get(id('cart'))));

  assert.equal(lab.requests.length, 1);
  assert.equal(new Set(materials).size, 1);
  assert.equal(materials[0]?.identity, id('cart'));
  assert.equal(await lab.manager.get(id('cart')), materials[0]);
});

test('at most eight requests run at once, and waiting handshakes overtake prefetches', async () => {
  await using lab = await Lab.open();
  const { promise, resolve } = Promise.withResolvers<void>();
  lab.gate = promise;
  for (let i = 0; i < 20; i++) lab.manager.prefetch(id(`warm-${i}`));
  while (lab.running < 8) await once(lab.events, 'request');
  const handshake = lab.manager.get(id('urgent'));
  const promoted = lab.manager.get(id('warm-19'));
  resolve();
  await Promise.all([handshake, promoted]);

  while (lab.requests.length < 21) await once(lab.events, 'request');
  assert.equal(lab.mostRunning, 8);
  // Eight slots came free together and keys are made in threads, so the exact order is open; without overtaking both
  // would be the last two.
  const next = lab.requests.slice(8, 19);
  assert(next.includes(id('urgent')) && next.includes(id('warm-19')), next.join());
});

test('a certificate is renewed at half of its life, with a new key, and announced', async () => {
  await using lab = await Lab.open();
  const announced: string[] = [];
  using _subscription = lab.manager.subscribe((identity) => announced.push(identity));
  const first = await lab.manager.get(id('cart'));

  await lab.passQuietly(HALF_MS - 1_000);
  assert.equal(await lab.manager.get(id('cart')), first);
  await lab.pass(1_000);
  const second = await lab.manager.get(id('cart'));

  assert.notEqual(second.serial, first.serial);
  assert.notEqual(second.keyPem, first.keyPem);
  assert.deepEqual(announced, [id('cart'), id('cart')]);
});

test('while the CA is down retries back off to 150 s and the old certificate serves to its last second', async () => {
  await using lab = await Lab.open();
  const first = await lab.manager.get(id('cart'));
  lab.down = outage;
  await lab.pass(HALF_MS);

  for (const seconds of [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]) {
    await lab.passQuietly(seconds * 1000 - 1);
    await lab.pass(1);
    assert.equal(await lab.manager.get(id('cart')), first);
  }
  while (first.notAfterMs - lab.clock.wallMs() > 300_000) await lab.pass(150_000);
  while (first.notAfterMs - lab.clock.wallMs() > 2_000) {
    await lab.pass((first.notAfterMs - lab.clock.wallMs()) / 2);
    assert.equal(await lab.manager.get(id('cart')), first);
  }
  lab.clock.advance(first.notAfterMs - lab.clock.wallMs());
  assert.equal(await lab.manager.get(id('cart')), first);
  assert.equal(lab.lines.length, 1, 'one warning for an unchanged problem');
  assert.match(
    lab.lines[0] ?? '',
    /^certificate renewal failed \(the CA is on holiday\); retaining existing valid certificate until 2026-01-02T00:00:00Z; next retry at 2026-01-01T11:59:01Z$/,
  );
});

test('an expired certificate is refused at once with the reason, asked for at least every 15 s, and back when the CA is', async () => {
  await using lab = await Lab.open();
  await lab.manager.get(id('cart'));
  lab.down = outage;
  await lab.pass(2 * DAY_MS);

  await assert.rejects(lab.manager.get(id('cart')), {
    code: 'CV-CERT-UNAVAILABLE',
    message: 'identity error: the CA is on holiday',
  });
  assert.equal(lab.manager.snapshot()[0]?.state, 'Unavailable: identity error: the CA is on holiday');
  for (let i = 0; i < 20; i++) await lab.pass(15_000);
  lab.down = undefined;
  await lab.pass(15_000);

  assert.equal((await lab.manager.get(id('cart'))).notAfterMs, lab.clock.wallMs() + DAY_MS);
  assert.equal(lab.manager.snapshot()[0]?.state, 'Available');
});

test('the first request that fails rejects every handshake that waits, and the next ones at once', async () => {
  await using lab = await Lab.open();
  lab.down = outage;
  const waiting = await Promise.allSettled([lab.manager.get(id('cart')), lab.manager.get(id('cart'))]);

  for (const { status } of waiting) assert.equal(status, 'rejected');
  await assert.rejects(lab.manager.get(id('cart')), { code: 'CV-CERT-UNAVAILABLE' });
  assert.equal(lab.requests.length, 1);
});

test('a prefetch that fails is tried at long intervals, until a handshake misses it: then at once and often', async () => {
  await using lab = await Lab.open();
  lab.down = outage;
  const failed = once(lab.events, 'ended');
  lab.manager.prefetch(id('cart'));
  await failed;
  for (const seconds of [1, 2, 4, 8, 16, 32, 64, 128]) await lab.pass(seconds * 1_000);
  await lab.passQuietly(149_000);

  await assert.rejects(lab.manager.get(id('cart')), { code: 'CV-CERT-UNAVAILABLE' });
  assert.equal(lab.requests.length, 10);
  await lab.pass(15_000);
  lab.down = undefined;
  await lab.pass(15_000);
  assert.equal((await lab.manager.get(id('cart'))).identity, id('cart'));
});

test('a success ends the back-off: the next failure is tried again after a second', async () => {
  await using lab = await Lab.open();
  await lab.manager.get(id('cart'));
  lab.down = outage;
  await lab.pass(HALF_MS);
  for (const seconds of [1, 2, 4, 8]) await lab.pass(seconds * 1_000);
  lab.down = undefined;
  await lab.pass(16_000);
  lab.down = outage;
  await lab.pass(HALF_MS);

  await lab.passQuietly(999);
  await lab.pass(1);
});

test('a renewal in the background waits behind prefetches, and those behind handshakes', async () => {
  const queue = new IssueQueue(1);
  const order: string[] = [];
  const busy = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  queue.add(id('busy'), 'RealTime', () => busy.promise);
  for (const priority of ['Background', 'Warmup', 'RealTime'] as const) {
    queue.add(id(priority), priority, async () => {
      if (order.push(priority) === 3) ended.resolve();
    });
  }
  busy.resolve();
  await ended.promise;
  assert.deepEqual(order, ['RealTime', 'Warmup', 'Background']);
});

test('a CA that never answers fails the attempt after 10 s, and the retry succeeds', async () => {
  await using lab = await Lab.open();
  lab.gate = new Promise(() => undefined);
  const first = lab.manager.get(id('cart'));
  await once(lab.events, 'request');
  lab.clock.advance(10_000);

  await assert.rejects(first, { code: 'CV-CERT-UNAVAILABLE', message: /did not answer in 10000 ms/ });
  lab.gate = undefined;
  await lab.pass(1_000);
  assert.equal((await lab.manager.get(id('cart'))).identity, id('cart'));
});

test('a handshake behind a full queue waits at most 15 s', async () => {
  await using lab = await Lab.open();
  lab.gate = new Promise(() => undefined);
  for (let i = 0; i < 8; i++) lab.manager.prefetch(id(`hung-${i}`));
  while (lab.running < 8) await once(lab.events, 'request');
  const waiting = lab.manager.get(id('cart'));
  lab.clock.advance(15_000);

  await assert.rejects(waiting, { code: 'CV-CERT-UNAVAILABLE', message: /has not answered yet/ });
});

test('nothing is asked of the CA for an identity that is forgotten while its key is made', async () => {
  await using lab = await Lab.open();
  const waiting = lab.manager.get(id('cart'));
  lab.manager.forget(id('cart'));
  await assert.rejects(waiting, { message: /no pod of this node uses the identity any more/ });
  // Keys are made in turn: by then the other one is there, too.
  await lab.manager.get(id('web'));
  assert.deepEqual(lab.requests, [id('web')]);
});

test('forgetting an identity stops its renewal, fails who waits and drops the key', async () => {
  await using lab = await Lab.open();
  await lab.manager.get(id('cart'));
  lab.gate = new Promise(() => undefined);
  const waiting = lab.manager.get(id('gone'));
  await once(lab.events, 'request');
  lab.manager.forget(id('gone'));
  lab.manager.forget(id('cart'));

  await assert.rejects(waiting, { code: 'CV-CERT-UNAVAILABLE', message: /no pod of this node/ });
  assert.deepEqual(lab.manager.snapshot(), []);
  await lab.passQuietly(3 * DAY_MS);
});

const lies: readonly {
  readonly name: string;
  readonly lie: (issued: IssuedCertificate) => Promise<IssuedCertificate>;
  readonly message: RegExp;
}[] = [
  {
    name: 'a certificate for another identity',
    lie: async (issued) => {
      const other = await (await meshCa()).material(id('admin'));
      return { ...issued, chainPem: [other.chainPem], rootsPem: other.rootsPem, keyPem: other.keyPem };
    },
    message: /names another identity \(spiffe:\/\/cluster.local\/ns\/shop\/sa\/admin\)/,
  },
  {
    name: 'a certificate for another key',
    lie: async (issued) => {
      const other = await (await meshCa()).material(id('cart'));
      return { ...issued, chainPem: [other.chainPem], rootsPem: other.rootsPem };
    },
    message: /for another key/,
  },
  {
    name: 'roots that the chain does not lead to',
    lie: async (issued) => ({ ...issued, rootsPem: [(await meshCa()).rootPem] }),
    message: /does not end at the roots/,
  },
  {
    name: 'no intermediate',
    lie: async (issued) => ({ ...issued, chainPem: issued.chainPem.slice(0, 1) }),
    message: /does not end/,
  },
  { name: 'no roots', lie: async (issued) => ({ ...issued, rootsPem: [] }), message: /no readable self-signed root/ },
  {
    name: 'only an intermediate for a root',
    lie: async (issued) => ({ ...issued, rootsPem: issued.chainPem.slice(1) }),
    message: /no readable self-signed root/,
  },
  { name: 'rubbish', lie: async (issued) => ({ ...issued, chainPem: ['hello'] }), message: /chain is malformed/ },
  { name: 'nothing', lie: async (issued) => ({ ...issued, chainPem: [] }), message: /chain is empty/ },
];

for (const { name, lie, message } of lies) {
  test(`an answer of the CA with ${name} is not used`, async () => {
    await using lab = await Lab.open();
    const sample = { chainPem: [], rootsPem: lab.roots };
    const { keyPem } = await lie(sample);
    const lying: CertificateProvider = {
      title: 'a liar',
      issue: async (identity, csrPem, ttlMs, signal) => lie(await lab.issue(identity, csrPem, ttlMs, signal)),
    };
    assert.equal(typeof keyPem === 'string', name.includes('identity'));
    using manager = new CertificateManager({
      provider: lying,
      clock: lab.clock,
      random: noJitter,
      log: silentLogger,
      ttlMs: DAY_MS,
    });

    await assert.rejects(manager.get(id('cart')), { code: 'CV-CERT-UNAVAILABLE', message });
  });
}

test('new roots reach the material at once, with a new serial and no new certificate', async () => {
  await using lab = await Lab.open();
  const first = await lab.manager.get(id('cart'));
  const other = await meshCa('other');
  const announced = once(lab.events, 'announced');
  using _subscription = lab.manager.subscribe((identity) => lab.events.emit('announced', identity));

  lab.setRoots([...lab.roots, other.rootPem]);
  await announced;
  const second = await lab.manager.get(id('cart'));

  assert.deepEqual(second.rootsPem, [...lab.roots, other.rootPem]);
  assert.equal(second.chainPem, first.chainPem);
  assert.notEqual(second.serial, first.serial);
  assert.equal(lab.requests.length, 1);
});

test('a certificate that no longer leads to a trusted root is replaced at once and serves until then', async () => {
  await using lab = await Lab.open();
  const first = await lab.manager.get(id('cart'));
  const other = await meshCa('other');

  const asked = once(lab.events, 'request');
  lab.setRoots([other.rootPem]);
  assert.equal(await lab.manager.get(id('cart')), first);
  await asked;
  assert.equal(lab.requests.length, 2);
});

test('roots that change while a request is under way are in the material that it brings', async () => {
  await using lab = await Lab.open();
  const { promise, resolve } = Promise.withResolvers<void>();
  lab.gate = promise;
  const waiting = lab.manager.get(id('cart'));
  await once(lab.events, 'request');
  const other = await meshCa('other');
  lab.setRoots([...lab.roots, other.rootPem]);
  resolve();

  assert.deepEqual((await waiting).rootsPem, [...lab.roots, other.rootPem]);
});

test('the snapshot has the fields of config_dump, sorted, and no private key', async (t: TestContext) => {
  await using lab = await Lab.open();
  await lab.manager.get(id('shop'));
  const { promise, resolve } = Promise.withResolvers<void>();
  t.after(() => resolve());
  lab.gate = promise;
  lab.manager.prefetch(id('cart'));
  const [cart, shop] = lab.manager.snapshot();

  assert.deepEqual(cart, { identity: id('cart'), state: 'Initializing', certChain: [], rootCerts: [] });
  assert.equal(shop?.state, 'Available');
  assert.equal(shop.certChain.length, 2);
  assert.equal(shop.rootCerts.length, 1);
  const [leaf] = shop.certChain;
  assert.match(Buffer.from(leaf?.pem ?? '', 'base64').toString(), /^-----BEGIN CERTIFICATE-----\n/);
  assert.match(leaf?.serialNumber ?? '', /^\d{39}$/);
  assert.equal(leaf?.validFrom, '2025-12-31T23:58:00Z');
  assert.equal(leaf.expirationTime, '2026-01-02T00:00:00Z');
  assert.doesNotMatch(JSON.stringify(lab.manager.snapshot()), /PRIVATE/);
});

test('the expiry horizon is that of the certificate which ends first', async () => {
  await using lab = await Lab.open();
  assert.equal(lab.manager.earliestExpiryMs(), undefined);
  const first = await lab.manager.get(id('a'));
  lab.clock.advance(60_000);
  await lab.manager.get(id('b'));

  assert.equal(lab.manager.earliestExpiryMs(), first.notAfterMs);
});

test('more than 10,000 identities are refused, and prefetches beyond that dropped', async () => {
  await using lab = await Lab.open();
  lab.down = outage;
  for (let i = 0; i < 10_001; i++) lab.manager.prefetch(id(`pod-${i}`));

  assert.equal(lab.manager.snapshot().length, 10_000);
  await assert.rejects(lab.manager.get(id('one-more')), { code: 'CV-LIMIT' });
});

test('a wall clock that jumps ahead is noticed within ten minutes', async () => {
  await using lab = await Lab.open();
  await lab.manager.get(id('cart'));
  lab.skewMs = HALF_MS;

  await lab.passQuietly(599_999);
  await lab.pass(1);
  assert.equal(lab.requests.length, 2);
});

test('a wall clock that is set back does not put off what failed while it was ahead', async () => {
  await using lab = await Lab.open();
  lab.skewMs = 30 * DAY_MS;
  await assert.rejects(lab.manager.get(id('web')), {
    message: /it has expired already; compare the clock of this node with that of the CA/,
  });
  lab.skewMs = 0;
  await lab.pass(15_000);
  assert.equal((await lab.manager.get(id('web'))).identity, id('web'));
});
