import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { MeshError } from '../../../src/base/errors.ts';
import type { LogFields } from '../../../src/base/log.ts';
import { CertificateManager } from '../../../src/identity/certificate-manager.ts';
import { WORKLOAD_HEADERS, WorkloadApi } from '../../../src/identity/workload-api.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import { RpcChannel } from '../../../src/rpc/channel.ts';
import { rpcRefusal } from '../../../src/rpc/status.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { meshCa } from '../../support/certs.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type SvidResponse, svidOf, WorkloadApiServer } from '../../support/workload-api-server.ts';

const bounded = { timeout: 60_000 };
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const START_MS = new FakeClock().wallMs();
const LIFE = { notBeforeMs: START_MS - 3_600_000, notAfterMs: START_MS + 24 * 3_600_000 };
const ca = await meshCa();
const noJitter = { next: () => 0.5, hex: () => '' };

/** A server, the provider, and a manager over it that lives by a fake clock. */
class World implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly events = new EventEmitter();
  readonly lines: { readonly message: string; readonly fields: LogFields }[] = [];
  readonly problems: MeshError[] = [];
  readonly server: WorkloadApiServer;
  readonly manager: CertificateManager;
  readonly #open = new AsyncDisposableStack();

  private constructor(server: WorkloadApiServer, headers: ReadonlyMap<string, string>) {
    this.server = server;
    const channel = this.#open.use(
      new RpcChannel(
        {
          address: { kind: 'unix', path: server.path },
          name: 'Workload API',
          failureCode: 'CV-WORKLOAD-API',
          tls: { roots: { kind: 'system' } },
          credentials: { token: { kind: 'none' }, headers },
        },
        { clock: systemClock, files: { read: () => Buffer.of() } },
      ),
    );
    const write = (message: string, fields: LogFields = {}): void => {
      this.lines.push({ message, fields });
      this.events.emit(message);
    };
    const log = { warn: write, info: write };
    const deps = { channel, clock: this.clock, random: noJitter, log };
    const provider = this.#open.use(
      new WorkloadApi({
        ...deps,
        onProblem: (error) => {
          this.problems.push(error);
          this.events.emit('problem');
        },
      }),
    );
    const observer = { issued: () => undefined, failed: () => this.events.emit('failed') };
    this.manager = this.#open.use(
      new CertificateManager({ provider, clock: this.clock, random: noJitter, log: {}, observer, ttlMs: 3_600_000 }),
    );
    this.#open.use(this.manager.subscribe((identity) => this.events.emit('changed', identity)));
  }

  /** With this response published, before the first stream. */
  static async open(response?: SvidResponse, headers = WORKLOAD_HEADERS): Promise<World> {
    const folder = mkdtempSync(join(tmpdir(), 'culvert-spiffe-'));
    const server = await WorkloadApiServer.start(join(folder, 'agent.sock'));
    if (response !== undefined) server.publish(response);
    const world = new World(server, headers);
    world.#open.defer(async () => {
      await server[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    });
    return world;
  }

  /** Publishes, and waits until the provider has taken or refused it. */
  async publish(response: SvidResponse): Promise<void> {
    const taken = Promise.race([once(this.events, 'SVIDs received'), once(this.events, 'problem')]);
    this.server.publish(response);
    await taken;
  }

  /** Lets `ms` pass and waits for `event`. */
  async pass(ms: number, event: string): Promise<void> {
    // What the provider does after its last event is done by then: it waits for the clock.
    await nextTurn();
    const happened = once(this.events, event);
    this.clock.advance(ms);
    await happened;
  }

  get warnings(): string[] {
    return this.lines.filter(({ message }) => message !== 'SVIDs received').map(({ message }) => message);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The channel last: streams in it end with the provider.
    await this.#open.disposeAsync();
  }
}

function material(identity: string, from = ca): Promise<TlsMaterial> {
  return from.material(identity, LIFE);
}

const [cart, web] = [await material(CART), await material(WEB)];

test('each SVID serves the identity that it names, with its own key and bundle', bounded, async () => {
  const foreign = await meshCa('other');
  const third = await material('spiffe://other.test/ns/shop/sa/third', foreign);
  await using world = await World.open({ svids: [svidOf(cart), svidOf(web), svidOf(third)] });

  for (const want of [cart, web, third]) {
    const held = await world.manager.get(want.identity);
    assert.deepEqual(
      [held.keyPem, held.chainPem, held.rootsPem],
      [want.keyPem, want.chainPem, want.rootsPem],
      want.identity,
    );
  }
  assert.equal(world.server.opened, 1);
});

test('a rotated SVID serves the next handshake, the others are not touched', bounded, async () => {
  await using world = await World.open({ svids: [svidOf(cart), svidOf(web)] });
  await Promise.all([world.manager.get(CART), world.manager.get(WEB)]);
  const next = await material(CART);
  const changed = once(world.events, 'changed');
  await world.publish({ svids: [svidOf(next), svidOf(web)] });

  assert.deepEqual(await changed, [CART]);
  assert.equal((await world.manager.get(CART)).chainPem, next.chainPem);
  assert.equal((await world.manager.get(WEB)).chainPem, web.chainPem);
});

test('a new trust bundle is pushed without a new certificate', bounded, async () => {
  await using world = await World.open({ svids: [svidOf(cart)] });
  await world.manager.get(CART);
  const roots = [...cart.rootsPem, (await meshCa('next')).rootPem];
  const changed = once(world.events, 'changed');
  await world.publish({ svids: [svidOf({ ...cart, rootsPem: roots })] });
  await changed;

  const held = await world.manager.get(CART);
  assert.deepEqual([held.chainPem, held.rootsPem], [cart.chainPem, roots]);
});

test('an SVID that is no longer in a response is given up at once, with the reason', bounded, async () => {
  await using world = await World.open({ svids: [svidOf(cart), svidOf(web)] });
  await Promise.all([world.manager.get(CART), world.manager.get(WEB)]);
  await world.publish({ svids: [svidOf(web)] });

  await assert.rejects(world.manager.get(CART), {
    code: 'CV-CERT-UNAVAILABLE',
    message: /no SVID for this identity; register the agent for it/,
  });
  assert.equal((await world.manager.get(WEB)).chainPem, web.chainPem);
});

test('of two SVIDs for one identity the first counts; identities of other forms are passed over', bounded, async () => {
  const second = await material(CART);
  const other = { ...svidOf(cart), spiffeId: 'spiffe://cluster.local/agent' };
  await using world = await World.open({ svids: [other, svidOf(cart), svidOf(second)] });

  assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);
});

test('federated bundles are not trusted', bounded, async () => {
  const foreign = await meshCa('foreign');
  const { bundle } = svidOf(await material(WEB, foreign));
  await using world = await World.open({
    svids: [svidOf(cart)],
    federatedBundles: { 'spiffe://foreign.test': bundle },
  });

  assert.deepEqual((await world.manager.get(CART)).rootsPem, cart.rootsPem);
});

test('revocation lists in the stream are not dropped in silence', bounded, async () => {
  await using world = await World.open({ svids: [svidOf(cart)], crl: [Buffer.of(0x30, 0)] });
  await world.manager.get(CART);

  assert.deepEqual(world.warnings, [
    'revocation lists of the Workload API are not used; put them into the file at CRL_PATH',
  ]);
});

const refused: readonly (readonly [name: string, response: SvidResponse, why: RegExp])[] = [
  ['no SVID', { svids: [] }, /it has no SVID/],
  ['an SVID without identity', { svids: [{ ...svidOf(web), spiffeId: '' }] }, /without spiffe_id/],
  ['an empty chain', { svids: [{ ...svidOf(web), x509Svid: Buffer.of() }] }, /x509_svid of .* is empty/],
  ['an empty key', { svids: [{ ...svidOf(web), x509SvidKey: Buffer.of() }] }, /x509_svid_key of .* is empty/],
  ['an empty bundle', { svids: [{ ...svidOf(web), bundle: Buffer.of() }] }, /bundle of .* is empty/],
  ['a chain that is no DER', { svids: [{ ...svidOf(web), x509Svid: Buffer.from('hello') }] }, /not strict DER/],
  [
    'a chain cut short',
    { svids: [{ ...svidOf(web), x509Svid: svidOf(web).x509Svid.subarray(0, 99) }] },
    /not strict DER/,
  ],
];
for (const [name, response, why] of refused) {
  test(`a response with ${name} is reported once and discarded; what was before serves on`, bounded, async () => {
    await using world = await World.open({ svids: [svidOf(cart)] });
    await world.manager.get(CART);
    await world.publish(response);
    await world.publish({ ...response });

    assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);
    assert.match(world.problems[0]?.message ?? '', why);
    assert.deepEqual([world.problems.length, world.warnings.length], [2, 1]);

    const next = await material(CART);
    const changed = once(world.events, 'changed');
    await world.publish({ svids: [svidOf(next)] });
    await changed;
    assert.equal((await world.manager.get(CART)).chainPem, next.chainPem);
  });
}

test(
  'an SVID whose key is another is refused for its identity alone, which keeps its last good one',
  bounded,
  async () => {
    await using world = await World.open({ svids: [svidOf(cart), svidOf(web)] });
    await Promise.all([world.manager.get(CART), world.manager.get(WEB)]);
    const next = await material(WEB);
    const both = Promise.all([once(world.events, 'changed'), once(world.events, 'failed')]);
    await world.publish({ svids: [{ ...svidOf(cart), x509SvidKey: svidOf(web).x509SvidKey }, svidOf(next)] });
    await both;

    assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);
    assert.equal((await world.manager.get(WEB)).chainPem, next.chainPem);
    const status = world.manager.statuses().find(({ identity }) => identity === CART);
    assert.match(status?.lastError ?? '', /it is for another key/);
  },
);

test('a server that ends the stream is asked again at once, and its restart costs nothing', bounded, async () => {
  await using world = await World.open({ svids: [svidOf(cart)] });
  await world.manager.get(CART);
  await world.server.suspend();
  await world.server.resume();
  while (world.server.opened < 2) {
    world.clock.advance(30_000);
    await nextTurn();
  }

  assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);
});

test(
  'no server: the error names the socket; tries back off to 30 s; a server that comes is used',
  bounded,
  async () => {
    await using world = await World.open({ svids: [svidOf(cart)] });
    await world.server.suspend();
    while (world.problems.length < 8) await world.pass(30_000, 'problem');
    const { code, message } = world.problems.at(-1) ?? {};
    assert.equal(code, 'CV-WORKLOAD-API');
    assert.match(message ?? '', /^Workload API unix:\/\/\/.*agent\.sock: /);
    assert(world.warnings.length <= 3, 'an outage fills the log');

    await world.server.resume();
    await world.pass(30_000, 'SVIDs received');
    assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);
  },
);

test(
  'a denial is borne for a minute, as a restarting agent denies; after that every SVID is given up',
  bounded,
  async () => {
    await using world = await World.open({ svids: [svidOf(cart)] });
    await world.manager.get(CART);
    world.server.refusal = rpcRefusal('PERMISSION_DENIED', 'no identity issued');
    const denied = once(world.events, 'problem');
    world.server.endStreams();
    await denied;
    await world.pass(29_000, 'problem');
    await world.pass(30_000, 'problem');
    assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);

    await world.pass(30_000, 'problem');
    await assert.rejects(world.manager.get(CART), { message: /no identity issued \(PERMISSION_DENIED\)/ });
    assert(world.warnings.includes('SVIDs are given up: the Workload API keeps denying them'));

    world.server.refusal = undefined;
    await world.pass(30_000, 'SVIDs received');
    assert.equal((await world.manager.get(CART)).chainPem, cart.chainPem);
  },
);

test('without the security header the server refuses, and is not asked again soon', bounded, async () => {
  await using world = await World.open({ svids: [svidOf(cart)] }, new Map());
  await assert.rejects(world.manager.get(CART), { message: /security header missing \(INVALID_ARGUMENT\)/ });
  const before = world.problems.length;
  world.clock.advance(20_000);
  for (let i = 0; i < 20; i++) await nextTurn();

  assert.equal(world.problems.length, before);
});
