import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { MeshError } from '../../../src/base/errors.ts';
import type { LogFields } from '../../../src/base/log.ts';
import { CertificateManager } from '../../../src/identity/certificate-manager.ts';
import { IstioCa } from '../../../src/identity/istio-ca.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { acceptTls, connectTls } from '../../../src/identity/tls-handshake.ts';
import type { RpcChannelOptions } from '../../../src/rpc/channel.ts';
import { RpcChannel } from '../../../src/rpc/channel.ts';
import type { RpcServer } from '../../../src/rpc/server.ts';
import { type CallContext, rpcService } from '../../../src/rpc/service.ts';
import { rpcRefusal } from '../../../src/rpc/status.ts';
import { readBounded } from '../../../src/sys/files.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import {
  type IstioCertificateRequest,
  IstioCertificateResponseSchema,
  IstioCertificateService,
} from '../../../src/wire/pb/citadel_pb.ts';
import { AGENT_TOKEN, CaServer } from '../../support/ca-server.ts';
import { meshCa } from '../../support/certs.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { serverCertificate } from '../../support/server-certs.ts';
import { tcpPair } from '../../support/tcp.ts';
import { makeUnreadable, UNREADABLE } from '../../support/unreadable.ts';
import { certificate, directory, loopback, serve } from '../rpc/rpc-fixture.ts';

const bounded = { timeout: 60_000 };
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const DAY_MS = 86_400_000;

interface ClientOptions {
  readonly port: number;
  readonly isShared?: boolean;
  readonly channel?: Partial<RpcChannelOptions>;
  /** Of the manager; the channel has the real one. */
  readonly clock?: FakeClock;
}

/** The client under test, with a manager over it. */
function client({ port, isShared = true, channel: changes = {}, clock }: ClientOptions) {
  const open = new DisposableStack();
  const channel = open.use(
    new RpcChannel(
      {
        address: { kind: 'tls', host: 'localhost', port },
        name: 'Istio CA',
        failureCode: 'CV-CA',
        tls: { roots: { kind: 'inline', pem: certificate.rootPem } },
        credentials: {
          token: { kind: 'literal', token: AGENT_TOKEN },
          clusterId: 'Kubernetes',
          headers: new Map([['x-tenant', 'blue']]),
        },
        ...changes,
      },
      { clock: systemClock, files: { read: readBounded } },
    ),
  );
  const provider = new IstioCa({ channel, isShared });
  const lines: { readonly message: string; readonly fields: LogFields }[] = [];
  const events = new EventEmitter();
  const manager = open.use(
    new CertificateManager({
      provider,
      clock: clock ?? systemClock,
      random: systemRandom,
      ttlMs: 86_400_000,
      log: { warn: (message, fields = {}) => void lines.push({ message, fields }) },
      observer: {
        issued: () => events.emit('ended'),
        failed: (_identity, error) => {
          events.emit('failed', error);
          events.emit('ended');
        },
      },
    }),
  );
  return {
    manager,
    lines,
    events,
    /** Lets the fake clock reach the next try of the only identity, unless one is under way, and waits for its end. */
    async retried(): Promise<void> {
      const ended = once(events, 'ended');
      const nextTryAt = manager.statuses()[0]?.nextTryAt;
      if (nextTryAt !== undefined) clock?.advance(Date.parse(nextTryAt) + 1_000 - clock.wallMs());
      await ended;
    },
    [Symbol.dispose]: () => open.dispose(),
  };
}

type Answer = (
  request: IstioCertificateRequest,
  context: CallContext,
) => readonly string[] | Promise<readonly string[]>;

/** A server that answers with any chain. */
function answering(answer: Answer): Promise<RpcServer> {
  const service = rpcService(IstioCertificateService, {
    createCertificate: async (request, context) => {
      const certChain: MessageInitShape<typeof IstioCertificateResponseSchema> = {
        certChain: [...(await answer(request, context))],
      };
      return create(IstioCertificateResponseSchema, certChain);
    },
  });
  return serve(service);
}

async function failure(pending: Promise<unknown>): Promise<{ code: unknown; message: string }> {
  const error = await pending.then(
    () => assert.fail('a certificate was issued'),
    (caught: unknown) => caught,
  );
  assert(error instanceof MeshError && error.cause instanceof MeshError);
  return { code: error.cause.code, message: error.message };
}

test('a certificate from the CA service: identity, chain, roots and lifetime are as asked', bounded, async () => {
  await using ca = await CaServer.start({ listen: loopback() });
  using agent = client({ port: ca.port });
  const material = await agent.manager.get(CART);

  assert.equal(material.identity, CART);
  assert.deepEqual(material.rootsPem, ca.ca.rootsPem);
  assert(Math.abs(material.notAfterMs - (Date.now() + DAY_MS)) < 60_000);
});

test('the request is exactly that of ztunnel, and impersonates in shared mode only', bounded, async () => {
  const seen: { request: IstioCertificateRequest; headers: (string | undefined)[] }[] = [];
  await using server = await answering((request, { header }) => {
    seen.push({ request, headers: ['authorization', 'clusterid', 'x-tenant'].map(header) });
    return [];
  });
  for (const isShared of [true, false]) {
    using agent = client({ port: server.port, isShared });
    await assert.rejects(agent.manager.get(CART));
  }

  assert.match(seen[0]?.request.csr ?? '', /^-----BEGIN CERTIFICATE REQUEST-----\n/);
  assert.equal(seen[0]?.request.validityDuration, 86_400n);
  assert.deepEqual(
    seen.map(({ request }) => request.metadata),
    [{ ImpersonatedIdentity: CART }, undefined],
  );
  assert.deepEqual(seen[0]?.headers, [`Bearer ${AGENT_TOKEN}`, 'Kubernetes', 'blue']);
});

const other = await (await meshCa('other')).material(WEB);
const [otherLeaf = '', ...otherRest] = other.chainPem.split(/(?<=-----END CERTIFICATE-----\n)/);
const answers: readonly (readonly [name: string, chain: readonly string[], why: RegExp])[] = [
  ['nothing', [], /its answer is empty/],
  ['a certificate without root', [otherLeaf], /a certificate and no root/],
  [
    'a certificate of another identity',
    [otherLeaf, ...otherRest, ...other.rootsPem],
    /issued .*\/sa\/web instead of .*\/sa\/cart/,
  ],
  ['rubbish', ['hello', 'world'], /its certificate cannot be read/],
  ['8 MiB', [otherLeaf, 'x'.repeat(8 * 1024 * 1024)], /its answer is too long/],
  ['a thousand elements', [otherLeaf, ...Array.from({ length: 1_000 }, () => 'x')], /its answer is too long/],
];
for (const [name, chain, why] of answers) {
  test(`an answer with ${name} is refused, and the error names the CA`, bounded, async () => {
    await using server = await answering(() => chain);
    using agent = client({ port: server.port });
    const { code, message } = await failure(agent.manager.get(CART));

    assert.equal(code, 'CV-CA');
    assert.match(message, why);
    assert.match(message, /Istio CA https:\/\/localhost:\d+: /);
  });
}

for (const [status, code] of [
  ['UNAUTHENTICATED', 'CV-CA-AUTH'],
  ['PERMISSION_DENIED', 'CV-CA-AUTH'],
  ['UNAVAILABLE', 'CV-CA-UNREACHABLE'],
  ['INVALID_ARGUMENT', 'CV-CA'],
  ['INTERNAL', 'CV-CA'],
] as const) {
  test(`a CA that answers ${status} is ${code}, with its text`, bounded, async () => {
    await using server = await answering(() => {
      throw rpcRefusal(status, 'no, because');
    });
    using agent = client({ port: server.port });

    assert.deepEqual(await failure(agent.manager.get(CART)), {
      code,
      message: `identity error: Istio CA https://localhost:${server.port}: no, because (${status})`,
    });
    assert.equal(agent.lines[0]?.fields['reason'], code);
  });
}

test(
  'a token file that is missing, empty or not accepted is named; a good one is read for the very next try',
  bounded,
  async () => {
    await using ca = await CaServer.start({ listen: loopback() });
    using files = directory();
    const path = files.path('istio-token');
    const clock = new FakeClock();
    const credentials = { token: { kind: 'file', path }, headers: new Map<string, string>() } as const;
    using agent = client({ port: ca.port, channel: { credentials }, clock });
    const missing = await failure(agent.manager.get(CART));
    assert.equal(missing.code, 'CV-CA-AUTH');
    assert.match(
      missing.message,
      /token file .*istio-token cannot be read \(ENOENT.*\); is the projected token mounted\?/,
    );

    for (const [content, why] of [
      ['', /token file .*istio-token is empty/],
      ['expired', /request authentication failure \(UNAUTHENTICATED\)/],
    ] as const) {
      writeFileSync(path, content);
      await agent.retried();
      assert.match((await failure(agent.manager.get(CART))).message, why);
    }
    writeFileSync(path, `${AGENT_TOKEN}\n`);
    await agent.retried();
    assert.equal((await agent.manager.get(CART)).identity, CART);
  },
);

for (const kind of UNREADABLE) {
  test(
    `while the token file ${kind.name} the certificate serves, each try is counted, and one line names the file`,
    bounded,
    async () => {
      const clock = new FakeClock();
      await using ca = await CaServer.start({ listen: loopback(), clock });
      using files = directory();
      const path = files.write('istio-token', AGENT_TOKEN);
      const credentials = { token: { kind: 'file', path }, headers: new Map<string, string>() } as const;
      using agent = client({ port: ca.port, channel: { credentials }, clock });
      const first = await agent.manager.get(CART);
      makeUnreadable(path, kind);

      const failed: MeshError[] = [];
      agent.events.on('failed', (error: MeshError) => failed.push(error));
      for (let tries = 1; tries <= 3; tries += 1) {
        await agent.retried();
        assert.deepEqual(
          failed.map(({ code }) => code),
          Array.from({ length: tries }, () => 'CV-CA-AUTH'),
        );
        assert.equal(await agent.manager.get(CART), first);
      }
      assert.equal(agent.lines.length, 1);
      const line = agent.lines[0]?.message ?? '';
      assert(line.includes(`token file ${path} cannot be read (`) && line.includes(kind.error), line);
      assert.match(line, /is the projected token mounted\?.*retaining existing valid certificate until/);

      rmSync(path, { recursive: true });
      writeFileSync(path, AGENT_TOKEN);
      await agent.retried();
      assert.notEqual((await agent.manager.get(CART)).serial, first.serial);
    },
  );
}

test('roots that change on disk are used for the very next request', bounded, async () => {
  await using ca = await CaServer.start({ listen: loopback() });
  using files = directory();
  const path = files.write('root-cert.pem', serverCertificate('DNS:localhost').rootPem);
  const clock = new FakeClock();
  const tls = { roots: { kind: 'file', path } } as const;
  using agent = client({ port: ca.port, channel: { tls }, clock });
  const refused = await failure(agent.manager.get(CART));
  assert.equal(refused.code, 'CV-CA-UNREACHABLE');
  assert.match(refused.message, /not signed by a trusted root|root that is not trusted/);

  files.write('root-cert.pem', certificate.rootPem);
  await agent.retried();
  assert.equal((await agent.manager.get(CART)).identity, CART);
});

test(
  'a CA that accepts and says nothing fails the attempt after ten seconds; its late answer is not waited for',
  bounded,
  async () => {
    const { promise: never, resolve } = Promise.withResolvers<readonly string[]>();
    const asked = Promise.withResolvers<void>();
    await using server = await answering(() => {
      asked.resolve();
      return never;
    });
    const clock = new FakeClock();
    using agent = client({ port: server.port, clock });
    const waiting = failure(agent.manager.get(CART));
    await asked.promise;
    clock.advance(10_000);

    const { code, message } = await waiting;
    assert.equal(code, 'CV-CA-UNREACHABLE');
    assert.match(message, /Istio CA .* did not answer in 10000 ms/);
    resolve([]);
  },
);

test('a peer that speaks something else, and none at all, are unreachable', bounded, async (t) => {
  const server = net.createServer((socket) => socket.on('error', () => undefined).end('220 mail ESMTP\r\n'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as net.AddressInfo;
  using rubbish = client({ port });
  const closed = await CaServer.start({ listen: loopback() });
  await closed[Symbol.asyncDispose]();
  using nobody = client({ port: closed.port });

  assert.equal((await failure(rubbish.manager.get(CART))).code, 'CV-CA-UNREACHABLE');
  const refused = await failure(nobody.manager.get(CART));
  assert.equal(refused.code, 'CV-CA-UNREACHABLE');
  assert.match(refused.message, /ECONNREFUSED/);
});

test(
  'the old certificate serves through a CA that is away, to its last second; the CA back, the next try succeeds',
  bounded,
  async () => {
    const clock = new FakeClock();
    // Its certificates live by the same clock as the manager.
    await using ca = await CaServer.start({ listen: loopback(), clock });
    using agent = client({ port: ca.port, clock });
    const first = await agent.manager.get(CART);
    await ca.suspend();

    for (let tries = 0; clock.wallMs() < first.notAfterMs - 1_000; tries++) {
      assert(tries < 2_000, 'the manager does not come closer to the end');
      await agent.retried();
      if (clock.wallMs() <= first.notAfterMs) assert.equal(await agent.manager.get(CART), first);
    }
    assert.match(agent.lines[0]?.message ?? '', /retaining existing valid certificate until/);
    // The first try may find a connection that has just been lost, the others none.
    assert(agent.lines.length <= 3, `an outage fills the log: ${agent.lines.length} lines`);
    clock.advance(Math.max(0, first.notAfterMs - clock.wallMs()));
    await ca.resume();
    await agent.retried();
    assert.notEqual((await agent.manager.get(CART)).serial, first.serial);
  },
);

test('a hundred identities that fail alike are one line in the log', bounded, async () => {
  await using server = await answering(() => {
    throw rpcRefusal('UNAVAILABLE', 'starting');
  });
  using agent = client({ port: server.port });
  const names = Array.from({ length: 100 }, (_, i) => `${CART}-${i}`);
  await Promise.allSettled(names.map((name) => agent.manager.get(name)));

  assert.equal(agent.lines.length, 1);
  assert.equal(agent.manager.statuses().filter(({ lastError }) => lastError !== undefined).length, 100);
});

test(
  'a root that comes with one certificate is trusted with every other one at once, and leaves with the renewal',
  bounded,
  async () => {
    const clock = new FakeClock();
    await using ca = await CaServer.start({ listen: loopback(), clock });
    await using second = await CaServer.start({ listen: loopback(), clock });
    using agent = client({ port: ca.port, clock });
    const cart = await agent.manager.get(CART);
    assert.deepEqual(cart.rootsPem, ca.ca.rootsPem);

    // The CA moves to another root and gives out both for a while.
    const both = [...second.ca.rootsPem, ...ca.ca.rootsPem];
    ca.signer = { sign: (order) => ({ ...second.ca.sign(order), rootsPem: both }) };
    await agent.manager.get(WEB);
    const cartNow = await agent.manager.get(CART);
    assert.deepEqual([cartNow.chainPem, cartNow.rootsPem.length], [cart.chainPem, 2]);

    // Then the old root is taken out; each identity drops it with its own renewal.
    ca.signer = second.ca;
    const { promise: renewed, resolve } = Promise.withResolvers<void>();
    let ended = 0;
    agent.events.on('ended', () => (++ended === 2 ? resolve() : undefined));
    clock.advance(DAY_MS * 0.56);
    await renewed;
    for (const identity of [CART, WEB])
      assert.deepEqual((await agent.manager.get(identity)).rootsPem, second.ca.rootsPem);
  },
);

test('during the overlap both generations of certificates shake hands with each other', bounded, async () => {
  await using ca = await CaServer.start({ listen: loopback() });
  await using second = await CaServer.start({ listen: loopback() });
  using agent = client({ port: ca.port });
  await agent.manager.get(CART);
  const both = [...ca.ca.rootsPem, ...second.ca.rootsPem];
  ca.signer = { sign: (order) => ({ ...second.ca.sign(order), rootsPem: both }) };
  const web = await agent.manager.get(WEB);
  const cart = await agent.manager.get(CART);

  for (const [server, peer] of [
    [cart, web],
    [web, cart],
  ] as const) {
    await using pair = await tcpPair();
    const options = { contexts: new TlsContexts(), clock: systemClock };
    const [accepted] = await Promise.all([
      acceptTls(pair.far, server, options),
      connectTls(pair.near, peer, [server.identity], options),
    ]);
    assert.equal(accepted.peerIdentity, peer.identity);
  }
});
