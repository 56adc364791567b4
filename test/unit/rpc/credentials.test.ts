import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FileAccess } from '../../../src/rpc/file-access.ts';
import { readToken, tokenSource } from '../../../src/rpc/token.ts';
import { parseTrustRoots, readTrustRoots } from '../../../src/rpc/trust-roots.ts';
import { serverCertificate } from '../../support/server-certs.ts';

const { rootPem } = serverCertificate('DNS:istiod.test');

function filesOf(content: Readonly<Record<string, string>>): FileAccess {
  return {
    read(path, maxBytes) {
      const text = content[path];
      if (text === undefined) throw new Error(`ENOENT: ${path}`);
      if (text.length > maxBytes) throw new Error(`${path} is over ${maxBytes} bytes`);
      return Buffer.from(text);
    },
  };
}

const DEFAULT_TOKEN = './var/run/secrets/tokens/istio-token';

test('without AUTH_TOKEN the default file counts when it is there at start', () => {
  assert.deepEqual(
    tokenSource(undefined, (path) => path === DEFAULT_TOKEN),
    { kind: 'file', path: DEFAULT_TOKEN },
  );
});

test('without AUTH_TOKEN and without the default file no credentials are sent', () => {
  assert.deepEqual(
    tokenSource(undefined, () => false),
    { kind: 'none' },
  );
  assert.equal(readToken({ kind: 'none' }, filesOf({})), undefined);
});

test('AUTH_TOKEN is a path when there is such a file, and the token itself when not', () => {
  assert.deepEqual(
    tokenSource('/t', (path) => path === '/t'),
    { kind: 'file', path: '/t' },
  );
  assert.deepEqual(
    tokenSource('abc', () => false),
    { kind: 'literal', token: 'abc' },
  );
});

test('a token is read without the line end that editors leave', () => {
  assert.equal(readToken({ kind: 'file', path: '/t' }, filesOf({ '/t': 'abc.def-_~+/==\n' })), 'abc.def-_~+/==');
});

const badTokens = [
  { name: 'a token file that is gone', files: {}, problem: /token file \/t cannot be read / },
  { name: 'an empty token file', files: { '/t': ' \n' }, problem: /\/t is empty/ },
  {
    name: 'a token that would make a second header',
    files: { '/t': 'abc\r\nclusterid: x' },
    problem: /\/t holds char/,
  },
  {
    name: 'a token file of a megabyte',
    files: { '/t': 'a'.repeat(1024 * 1024) },
    problem: /token file \/t cannot be read/,
  },
];

for (const { name, files, problem } of badTokens) {
  test(`${name} is an error that does not show the token`, () => {
    assert.throws(
      () => readToken({ kind: 'file', path: '/t' }, filesOf(files)),
      (error: Error) => problem.test(error.message) && !error.message.includes('abc') && error.message.length < 300,
    );
  });
}

test('roots are PEM text, the system, or a path that need not exist yet', () => {
  assert.deepEqual(parseTrustRoots('SYSTEM'), { kind: 'system' });
  assert.deepEqual(parseTrustRoots(rootPem), { kind: 'inline', pem: rootPem });
  assert.deepEqual(parseTrustRoots('/not/there'), { kind: 'file', path: '/not/there' });
});

test('roots come out of a file, out of the settings, and out of the operating system', () => {
  assert.deepEqual(readTrustRoots({ kind: 'file', path: '/r' }, filesOf({ '/r': rootPem })), [rootPem]);
  assert.deepEqual(readTrustRoots({ kind: 'inline', pem: rootPem }, filesOf({})), [rootPem]);
  assert(readTrustRoots({ kind: 'system' }, filesOf({})).every((pem) => pem.includes('-----BEGIN CERTIFICATE-----')));
});

for (const [name, content] of [
  ['an empty file', ''],
  ['a file of something else', 'hello'],
  ['a broken certificate', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'],
] as const) {
  test(`${name} is no trust bundle: an error with its place, never "trust the usual roots"`, () => {
    assert.throws(
      () => readTrustRoots({ kind: 'file', path: '/r' }, filesOf({ '/r': content })),
      /\/r has no readable PEM/,
    );
  });
}

test('roots that are not mounted are an error with the path and the cure', () => {
  assert.throws(() => readTrustRoots({ kind: 'file', path: '/r' }, filesOf({})), /mount them at \/r/);
});
