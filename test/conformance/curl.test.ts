/** curl, whose TLS and HTTP/2 nobody here wrote, as HBONE client of a captured pod. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { formatHostPort } from '../../src/base/ip.ts';
import { newCurl, skipWithoutNewCurl } from '../support/curl.ts';
import { identityOf, meshForFile } from '../support/mesh.ts';
import { meshMaterial } from '../support/mesh-hbone.ts';
import { skipWithoutRoot } from '../support/netns.ts';

const privileged = { skip: skipWithoutRoot || skipWithoutNewCurl, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n2: ['server', 'other'], n3: ['outside'] } });
const HTTP_PORT = 8080;
const UPLOAD_BYTES = 16 * 1024 * 1024;
/** The only way to see the status of a CONNECT over HTTP/2; `%{http_connect}` stays 000. */
const TRACE = ['--trace-config', 'h2-proxy'];
/** CURLE_RECV_ERROR: curl's word for an answer to CONNECT that is not 2xx. */
const EXIT_CONNECT_REFUSED = 56;

/** Answers with the hash of what it got, and who asked. */
const application = http.createServer((request, response) => {
  const hash = createHash('sha256');
  request.on('data', (chunk: Buffer) => hash.update(chunk));
  request.on('end', () =>
    response.end(`${request.socket.remoteAddress?.replace('::ffff:', '')} ${hash.digest('hex')}`),
  );
});

interface CurlOptions {
  readonly identity?: string;
  /** `address:port` for CONNECT. */
  readonly target?: string;
  readonly args?: readonly string[];
}

interface CurlResult {
  readonly code: number;
  readonly body: string;
  /** Status of the answer to CONNECT, if there was one. */
  readonly connectStatus: string | undefined;
  readonly said: string;
}

/** Runs in the pod outside the mesh, with a certificate of the mesh for `identity`, or with none. */
async function curl({ identity, target = serverPort(HTTP_PORT), args = [] }: CurlOptions): Promise<CurlResult> {
  const proxy = `https://${formatHostPort({ ip: mesh().pod('server').ip, port: 15_008 })}`;
  const certificate = identity === undefined ? [] : await certificateArgs(identity);
  // The server proves a SPIFFE identity and no host name, which curl cannot compare: -k is for that alone.
  const tunnel = ['--proxytunnel', '--proxy-http2', '--proxy', proxy, '--proxy-insecure', ...certificate];
  const argv = [newCurl ?? 'curl', '-sSv', ...TRACE, '--max-time', '30', ...tunnel, ...args];
  const { code, stdout, stderr } = await mesh()
    .pod('outside')
    .inside.exec([...argv, `http://${target}/`]);
  const connectStatus = /got http status: (\d+)/.exec(stderr)?.[1];
  return { code, body: stdout, connectStatus, said: stderr };
}

async function certificateArgs(identity: string): Promise<readonly string[]> {
  const { chainPem, keyPem } = await meshMaterial(mesh(), identity);
  const file = join(mesh().lab.folder, `curl-${randomBytes(4).toString('hex')}`);
  writeFileSync(`${file}.pem`, chainPem);
  writeFileSync(`${file}.key`, keyPem);
  return ['--proxy-cert', `${file}.pem`, '--proxy-key', `${file}.key`];
}

function serverPort(port: number): string {
  return formatHostPort({ ip: mesh().pod('server').ip, port });
}

function serveHttp(): Disposable {
  return mesh().serve('server', HTTP_PORT, (socket) => void application.emit('connection', socket));
}

test('curl with a mesh certificate reaches the application, which sees the address of curl', privileged, async () => {
  using _app = serveHttp();
  const { code, body, connectStatus, said } = await curl({ identity: identityOf('outside') });
  assert.equal(code, 0, said);
  assert.equal(connectStatus, '200');
  assert.match(body, new RegExp(`^${mesh().pod('outside').ip} `));
  assert.match(said, /ALPN: server accepted h2/);
  assert.match(said, /TLSv1\.3/);
});

test('an upload of 16 MiB through the tunnel of curl arrives bit for bit', privileged, async () => {
  using _app = serveHttp();
  const sent = randomBytes(UPLOAD_BYTES);
  const file = join(mesh().lab.folder, 'upload');
  writeFileSync(file, sent);
  const { code, body, said } = await curl({ identity: identityOf('outside'), args: ['--data-binary', `@${file}`] });
  assert.equal(code, 0, said);
  assert.equal(body.split(' ')[1], createHash('sha256').update(sent).digest('hex'));
});

test('the CONNECT of curl to an address that is not the pod is answered 400', privileged, async () => {
  const target = formatHostPort({ ip: mesh().pod('other').ip, port: HTTP_PORT });
  const { code, connectStatus } = await curl({ identity: identityOf('outside'), target });
  assert.deepEqual([code, connectStatus], [EXIT_CONNECT_REFUSED, '400']);
});

test('the CONNECT of curl to a port nobody listens on is answered 503', privileged, async () => {
  const { code, connectStatus } = await curl({ identity: identityOf('outside'), target: serverPort(9) });
  assert.deepEqual([code, connectStatus], [EXIT_CONNECT_REFUSED, '503']);
});

test('the identity in the certificate of curl decides: allowed 200, any other 401', privileged, async () => {
  using _app = serveHttp();
  const principals = [{ Exact: identityOf('outside').replace('spiffe://', '') }];
  const only = { name: 'only', namespace: 'demo', scope: 'Namespace', action: 'Allow', dryRun: false };
  await mesh().update({ policies: [{ ...only, rules: [[[{ principals }]]] }] });
  try {
    const allowed = await curl({ identity: identityOf('outside') });
    const refused = await curl({ identity: identityOf('somebody-else') });
    assert.deepEqual([allowed.code, allowed.connectStatus], [0, '200']);
    assert.deepEqual([refused.code, refused.connectStatus], [EXIT_CONNECT_REFUSED, '401']);
  } finally {
    await mesh().update({});
  }
});

test('curl without a client certificate, or with one of another trust domain, gets no answer', privileged, async () => {
  using _app = serveHttp();
  for (const identity of [undefined, 'spiffe://elsewhere/ns/demo/sa/outside']) {
    const { code, connectStatus } = await curl(identity === undefined ? {} : { identity });
    assert.notEqual(code, 0);
    assert.equal(connectStatus, undefined);
  }
});
