/** Our HTTP/2 engine against python3-h2, as client and as server: every setting, header and window is compared. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import tls from 'node:tls';
import { SETTING } from '../../src/wire/h2-protocol.ts';
import { echo, Peer, Reader, tlsOptions } from '../net/tunnel/h2-peers.ts';

const PYTHON = '/usr/bin/python3';
const SCRIPT = path.join(import.meta.dirname, 'h2-peer.py');
const hasH2 = spawnSync(PYTHON, ['-c', 'import h2']).status === 0;
const skip = hasH2 || process.env['MESH_REQUIRE_ROOT'] === '1' ? false : `python3-h2 is not installed for ${PYTHON}`;

interface Seen {
  readonly alpn: string;
  readonly settings: Readonly<Record<string, number>>;
  readonly windowUpdates: readonly (readonly [number, number])[];
  readonly requests: readonly (readonly (readonly [string, string])[])[];
  readonly responses: readonly (readonly (readonly [string, string])[])[];
  readonly received: Readonly<Record<string, readonly [number, string]>>;
  readonly resets: readonly (readonly [number, number])[];
  readonly goaways: readonly (readonly [number, number])[];
}

interface Python extends AsyncDisposable {
  readonly child: ChildProcess;
  /** Lines of its standard output. */
  line(): Promise<string>;
}

async function python(role: 'server' | 'client', port: number): Promise<Python> {
  const directory = await mkdtemp(path.join(tmpdir(), 'h2-peer-'));
  const file = async (name: string, text: string) => {
    const at = path.join(directory, name);
    await writeFile(at, text, { mode: 0o600 });
    return at;
  };
  const cert = await file('cert.pem', tlsOptions.cert);
  const key = await file('key.pem', tlsOptions.key);
  const ca = await file('ca.pem', tlsOptions.ca.join(''));
  const child = spawn(PYTHON, [SCRIPT, role, String(port), cert, key, ca], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    async line() {
      const next = await lines.next();
      return next.done === true ? assert.fail('the python peer ended without a word') : next.value;
    },
    async [Symbol.asyncDispose]() {
      child.kill();
      await rm(directory, { recursive: true });
    },
  };
}

test('python3-h2 as server sees the settings, window and headers of the reference client', { skip }, async () => {
  await using peer = await python('server', 0);
  const port = Number((await peer.line()).split(' ')[1]);
  const socket = tls.connect({ ...tlsOptions, port, host: '127.0.0.1', checkServerIdentity: () => undefined });
  await once(socket, 'secureConnect');
  const client = new Peer('client', socket);
  using _ = { [Symbol.dispose]: () => client.session.destroy() };
  const headers = {
    baggage: 'k8s.cluster.name=Kubernetes',
    forwarded: 'for="[::1]:80"',
    traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`,
  };
  const stream = client.session.request({ authority: '[fd00::1]:8080', headers });
  const response = await stream.response;
  assert.deepEqual([response.status, [...response.headers]], [200, [['baggage', ['x=1']]]]);
  const body = Buffer.alloc(2_000_000, 'culvert');
  const reader = new Reader(stream);
  for (let at = 0; at < body.length; at += 50_000)
    if (!stream.write(body.subarray(at, at + 50_000))) await reader.drained();
  stream.end();
  assert.equal(await reader.closed, undefined);
  assert.ok(Buffer.concat(reader.chunks).equals(body));
  client.session.destroy();

  const seen = JSON.parse(await peer.line()) as Seen;
  assert.equal(seen.alpn, 'h2');
  assert.deepEqual(seen.settings, {
    ENABLE_PUSH: 0,
    INITIAL_WINDOW_SIZE: 4_194_304,
    MAX_FRAME_SIZE: 1_048_576,
    MAX_HEADER_LIST_SIZE: 16_384,
    [SETTING.suspend]: 1,
  });
  assert.deepEqual(seen.windowUpdates[0], [0, 16_777_216 - 65_535]);
  assert.deepEqual(seen.requests, [
    [[':method', 'CONNECT'], [':authority', '[fd00::1]:8080'], ...Object.entries(headers)],
  ]);
  assert.deepEqual(seen.received, { 1: [body.length, createHash('sha256').update(body).digest('hex')] });
  assert.deepEqual([seen.resets, seen.goaways], [[], [[0, 0]]]);
});

test('python3-h2 as client sees the settings, window and answer of the reference server', { skip }, async () => {
  const listener = tls.createServer({ ...tlsOptions, requestCert: true, allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const accepted = once(listener, 'secureConnection') as Promise<[tls.TLSSocket]>;
  await using peer = await python('client', (listener.address() as net.AddressInfo).port);
  const [socket] = await accepted;
  listener.close();
  const requests: unknown[] = [];
  const server = new Peer('server', socket, {
    onStream: (stream, request) => {
      requests.push([request.method, request.authority, [...request.headers]]);
      echo(stream);
    },
  });
  const seen = JSON.parse(await peer.line()) as Seen;
  assert.equal(seen.alpn, 'h2');
  assert.deepEqual(seen.settings, {
    INITIAL_WINDOW_SIZE: 4_194_304,
    MAX_FRAME_SIZE: 1_048_576,
    MAX_HEADER_LIST_SIZE: 65_536,
    MAX_CONCURRENT_STREAMS: 200,
    [SETTING.suspend]: 1,
  });
  assert.deepEqual(seen.windowUpdates[0], [0, 16_777_216 - 65_535]);
  assert.deepEqual(seen.responses, [[[':status', '200']]]);
  const body = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * 31) % 251));
  assert.deepEqual(seen.received, { 1: [body.length, createHash('sha256').update(body).digest('hex')] });
  assert.deepEqual(requests, [
    [
      'CONNECT',
      '10.0.0.1:80',
      [
        ['baggage', ['k8s.namespace.name=default']],
        ['forwarded', ['for="10.0.0.9:1234"']],
      ],
    ],
  ]);
  assert.equal(await server.closed, undefined);
});
