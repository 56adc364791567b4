/** Tokens and roots of the xDS client: read again for each stream, and an error that says what is wrong. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { rpcRefusal } from '../../../src/rpc/status.ts';
import { serverCertificate } from '../../support/server-certs.ts';
import { makeUnreadable, UNREADABLE } from '../../support/unreadable.ts';
import { certificate, directory, localhost, loopback, serve } from '../rpc/rpc-fixture.ts';
import { ADDRESS, forever, POLICY, scripted, subject, workload } from './xds-fixture.ts';

const seen: (string | undefined)[] = [];
/** Refuses every token but the expected one. */
const guarded = (expected: string) =>
  scripted(async function* (talk) {
    seen.push(talk.header('authorization'));
    if (talk.header('authorization') !== `Bearer ${expected}`) throw rpcRefusal('UNAUTHENTICATED', 'token has expired');
    assert.equal(talk.header('clusterid'), 'Kubernetes');
    yield { typeUrl: ADDRESS, nonce: 'a', resources: [workload('kept')] };
    yield { typeUrl: POLICY, nonce: 'p' };
    await forever(talk);
  });

for (const { name, token, error } of [
  {
    name: 'missing',
    token: undefined,
    error: /token file .*\/token cannot be read .*ENOENT.*; is the projected token mounted\?/,
  },
  { name: 'empty', token: '', error: /token file .*\/token is empty/ },
  { name: 'no token at all', token: 'a\nb', error: /holds characters that no bearer token has/ },
  { name: 'expired', token: 'old', error: /token has expired \(UNAUTHENTICATED\)/ },
]) {
  test(`a token that is ${name} is told as that, and a good one is used as soon as it is there`, async () => {
    using files = directory();
    const path = files.write('token', token ?? '');
    if (token === undefined) rmSync(path);
    await using server = await serve(guarded('good'));
    const credentials = { token: { kind: 'file', path }, clusterId: 'Kubernetes', headers: new Map() } as const;
    await using agent = subject(localhost(server), { channel: { credentials } });
    await agent.until(() => agent.client.status.lastError !== undefined, 'an error');
    assert.match(agent.client.status.lastError ?? '', error);
    assert.equal(agent.isReady, false);
    assert.deepEqual(
      agent.lines.map(({ level }) => level),
      ['warn'],
    );
    files.write('token', 'good\n');
    await agent.until(() => agent.isReady, 'readiness');
  });
}

for (const kind of UNREADABLE) {
  test(`a token file that ${kind.name} from now on costs a line and a count per try; the mesh stays until it is mended`, async () => {
    using files = directory();
    const path = files.write('token', 'good');
    const first = await serve(guarded('good'));
    const credentials = { token: { kind: 'file', path }, clusterId: 'Kubernetes', headers: new Map() } as const;
    await using agent = subject(localhost(first), { channel: { credentials } });
    await agent.until(() => agent.isReady, 'readiness');
    makeUnreadable(path, kind);
    const { port } = first;
    await first.stop(0);
    await using _second = await serve(guarded('good'), { listen: loopback(certificate, port) });
    const failures = (): number => agent.counted.filter((text) => text === 'ended ConnectionError').length;
    await agent.until(() => failures() >= 3, 'three tries');
    const error = agent.client.status.lastError ?? '';
    assert(error.includes(`token file ${path} cannot be read (`) && error.includes(kind.error), error);
    assert.match(error, /is the projected token mounted\?/);
    const told = agent.lines.filter(({ level, fields }) => level !== 'debug' && fields['error'] === error);
    assert.equal(told.length, 1);
    assert.equal(agent.index.workloads.byUid('kept')?.name, 'kept');
    rmSync(path, { recursive: true });
    files.write('token', 'good');
    await agent.until(() => agent.client.status.isConnected, 'the second stream');
  });
}

test('a rotated token is sent with the next stream', async () => {
  using files = directory();
  const path = files.write('token', 'first');
  const first = await serve(guarded('first'));
  const credentials = { token: { kind: 'file', path }, clusterId: 'Kubernetes', headers: new Map() } as const;
  await using agent = subject(localhost(first), { channel: { credentials } });
  await agent.until(() => agent.isReady, 'readiness');
  files.write('token', 'second');
  const { port } = first;
  await first.stop(0);
  await using _second = await serve(guarded('second'), { listen: loopback(certificate, port) });
  await agent.until(() => agent.counted.filter((text) => text === 'connected true').length === 2, 'the second stream');
  assert.equal(seen.at(-1), 'Bearer second');
});

test('rotated roots are used with the next stream, without a restart', async () => {
  using files = directory();
  const next = serverCertificate('DNS:localhost');
  const path = files.write('roots.pem', certificate.rootPem);
  const script = scripted(async function* (talk) {
    yield { typeUrl: ADDRESS, nonce: 'a' };
    yield { typeUrl: POLICY, nonce: 'p' };
    await forever(talk);
  });
  const first = await serve(script);
  const tls = { roots: { kind: 'file', path } } as const;
  await using agent = subject(localhost(first), { channel: { tls } });
  await agent.until(() => agent.isReady, 'readiness');
  const { port } = first;
  await first.stop(0);
  await using _second = await serve(script, { listen: loopback(next, port) });
  await agent.until(() => /not signed by a trusted root/.test(agent.client.status.lastError ?? ''), 'the refusal');
  files.write('roots.pem', `${certificate.rootPem}\n${next.rootPem}`);
  await agent.until(() => agent.client.status.isConnected, 'the second stream');
});
