import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { adminFixture } from './admin-fixture.ts';
import { ask, askRaw } from './http.ts';

const JSON_TYPE = 'application/json';

const table: readonly { path: string; method: string; status: number; type?: string; text?: string }[] = [
  { path: '/', method: 'GET', status: 200, type: 'text/html; charset=utf-8' },
  { path: '/', method: 'DELETE', status: 200, type: 'text/html; charset=utf-8' },
  { path: '/config_dump', method: 'GET', status: 200, type: JSON_TYPE },
  { path: '/config_dump', method: 'PUT', status: 200, type: JSON_TYPE },
  { path: '/config_dump', method: 'HEAD', status: 200, type: JSON_TYPE, text: '' },
  { path: '/quitquitquit', method: 'GET', status: 405, text: '' },
  { path: '/quitquitquit', method: 'HEAD', status: 405, text: '' },
  { path: '/quitquitquit', method: 'POST', status: 200, type: 'text/plain', text: 'shutdown now\n' },
  { path: '/nothing', method: 'GET', status: 404, text: '' },
  { path: '/healthz', method: 'GET', status: 404, text: '' },
  { path: '/stats', method: 'GET', status: 404, text: '' },
  { path: '/config_dump/', method: 'GET', status: 404, text: '' },
  {
    path: '/debug/pprof/profile?seconds=0',
    method: 'GET',
    status: 400,
    text: 'invalid seconds value; expected 1-300\n',
  },
  {
    path: '/debug/pprof/profile?seconds=1.5',
    method: 'GET',
    status: 400,
    text: 'invalid seconds value; expected 1-300\n',
  },
  {
    path: '/debug/pprof/profile?frequency=1001',
    method: 'POST',
    status: 400,
    text: 'invalid frequency value; expected 1-1000\n',
  },
  { path: '/debug/pprof/heap', method: 'GET', status: 500, type: 'text/plain' },
  { path: '/debug/pprof/heap/profiling', method: 'GET', status: 200, text: 'heap profiling active: false\n' },
  { path: '/debug/pprof/heap/profiling?activate=yes', method: 'GET', status: 400 },
  { path: '/status', method: 'GET', status: 200, type: JSON_TYPE },
  { path: '/status', method: 'POST', status: 405, text: '' },
  { path: '/certificates', method: 'GET', status: 200, type: JSON_TYPE },
  { path: '/certificates', method: 'POST', status: 405, text: '' },
  { path: '/connections', method: 'GET', status: 200, type: JSON_TYPE },
  { path: '/usage', method: 'GET', status: 200, type: JSON_TYPE },
  { path: '/explain', method: 'GET', status: 400, type: JSON_TYPE },
  { path: '/explain?id=none', method: 'GET', status: 404, type: JSON_TYPE },
];

for (const { path, method, status, type, text } of table) {
  test(`${method} ${path} answers ${status}`, async () => {
    await using admin = await adminFixture();
    const reply = await ask(admin.port, path, { method });
    assert.equal(reply.status, status);
    if (type !== undefined) assert.equal(reply.headers['content-type'], type);
    if (text !== undefined) assert.equal(reply.text, text);
  });
}

/** What GET, POST and HEAD of each path are answered. */
const matrix: Readonly<Record<string, readonly [get: number, post: number, head: number]>> = {
  '/': [200, 200, 200],
  '/config_dump': [200, 200, 200],
  '/logging': [405, 200, 405],
  '/quitquitquit': [405, 200, 405],
  '/debug/pprof/profile?seconds=301': [400, 400, 400],
  '/debug/pprof/heap': [500, 500, 500],
  '/debug/pprof/heap/profiling': [200, 200, 200],
  '/ready': [404, 404, 404],
  '/clusters': [404, 404, 404],
};

for (const [path, statuses] of Object.entries(matrix)) {
  test(`${path} answers ${statuses.join(', ')} to GET, POST, HEAD, and no body to HEAD`, async () => {
    await using admin = await adminFixture();
    const replies = await Promise.all(['GET', 'POST', 'HEAD'].map((method) => ask(admin.port, path, { method })));
    assert.deepEqual(
      replies.map(({ status }) => status),
      statuses,
    );
    assert.equal(replies[2]?.text, '');
  });
}

test('the config dump is pretty-printed with sorted keys, and undefined fields are absent', async () => {
  await using admin = await adminFixture();
  const { text } = await ask(admin.port, '/config_dump');
  assert.equal(
    text,
    '{\n  "certificates": [],\n  "workloads": [\n    {\n      "name": "x",\n      "uid": "b"\n    }\n  ]\n}',
  );
});

test('of the config dump single sections can be asked for; one that does not exist is answered with those that do', async () => {
  await using admin = await adminFixture();
  const one = await ask(admin.port, '/config_dump?section=certificates');
  assert.deepEqual([one.status, JSON.parse(one.text)], [200, { certificates: [] }]);
  const two = await ask(admin.port, '/config_dump?section=workloads&section=certificates');
  assert.equal(two.text, (await ask(admin.port, '/config_dump')).text);
  for (const wrong of ['policy', '__proto__', 'constructor', '']) {
    const { status, text } = await ask(admin.port, `/config_dump?section=${wrong}`);
    const error = `there is no section "${wrong}"; use workloads, certificates`;
    assert.deepEqual([status, JSON.parse(text)], [400, { error }]);
  }
});

test('quitquitquit answers when the shutdown is over, and shuts down once', async () => {
  const over = Promise.withResolvers<void>();
  await using admin = await adminFixture({ quit: () => over.promise });
  const reply = ask(admin.port, '/quitquitquit', { method: 'POST' });
  const first = await Promise.race([reply.then(() => 'answered'), ask(admin.port, '/').then(() => 'still waiting')]);
  assert.equal(first, 'still waiting');
  over.resolve();
  assert.equal((await reply).text, 'shutdown now\n');
});

test('a web site cannot stop the agent or change its log level, whatever host name it resolved', async () => {
  await using admin = await adminFixture();
  const attempts = [
    { host: 'evil.example' },
    { host: '192.168.1.10:15000' },
    { host: 'localhost.evil.example' },
    { host: 'localhost:15000', origin: 'https://evil.example' },
    { host: '127.0.0.1', origin: 'null' },
    { host: '127.0.0.1@evil.example' },
  ];
  for (const headers of attempts) {
    for (const path of ['/quitquitquit', '/logging?level=trace']) {
      assert.equal((await ask(admin.port, path, { method: 'POST', headers })).status, 403, JSON.stringify(headers));
    }
  }
  assert.equal(admin.quits(), 0);
});

test('a web site that rebinds its name cannot read the dump either, an address of a port-forward can', async () => {
  await using admin = await adminFixture();
  assert.equal((await ask(admin.port, '/config_dump', { headers: { host: 'evil.example' } })).status, 403);
  assert.equal((await ask(admin.port, '/config_dump', { headers: { host: '10.0.0.7:15000' } })).status, 200);
});

test('loopback names with any port, and the dashboard itself, may change things', async () => {
  await using admin = await adminFixture();
  for (const headers of [
    { host: 'localhost' },
    { host: 'LOCALHOST:8080', origin: 'http://localhost:8080' },
    { host: '[::1]:15000', origin: 'http://[::1]:15000' },
  ]) {
    assert.equal((await ask(admin.port, '/logging', { method: 'POST', headers })).status, 200, JSON.stringify(headers));
  }
});

test('a head that does not come closes the connection', { timeout: 90_000 }, async () => {
  await using admin = await adminFixture();
  await askRaw(admin.port, 'GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ');
});

test('a connection that says nothing is closed too', { timeout: 90_000 }, async () => {
  await using admin = await adminFixture();
  await askRaw(admin.port, '');
});

test('a head over 8 KiB is refused', async () => {
  await using admin = await adminFixture();
  const answer = await askRaw(admin.port, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(9_000)}\r\n\r\n`);
  assert.match(answer, /^HTTP\/1\.1 431 /);
});

test('a defect of a provider is a 500 with its text, and the server goes on', async () => {
  await using admin = await adminFixture({
    configDump: () => {
      throw new Error('no dump today');
    },
  });
  const reply = await ask(admin.port, '/config_dump');
  assert.equal(reply.status, 500);
  assert.equal(reply.text, 'no dump today\n');
  assert.equal((await ask(admin.port, '/')).status, 200);
});

test('a remembered refusal is explained with its reason, layer and next step', async () => {
  await using admin = await adminFixture();
  const { connection, reason } = JSON.parse((await ask(admin.port, '/explain?id=c-9')).text);
  assert.equal(connection.state, 'refused');
  assert.equal(connection.error, 'explicitly denied by: retail/no');
  assert.equal(reason.code, 'CV-POLICY-DENY');
  assert.equal(reason.layer, 'policy');
  assert.match(reason.next, /culvert policies/);
});

test('open connections and recent refusals are listed', async () => {
  await using admin = await adminFixture();
  const { open, refused } = JSON.parse((await ask(admin.port, '/connections')).text);
  assert.deepEqual([open.length, open[0].id, refused.length, refused[0].id], [1, 'c-1', 1, 'c-9']);
});

test('a CPU profile is a pprof message that names the functions that ran', { timeout: 90_000 }, async () => {
  await using admin = await adminFixture();
  const profile = ask(admin.port, '/debug/pprof/profile?seconds=1&frequency=1000');
  const second = await ask(admin.port, '/debug/pprof/profile?seconds=1');
  assert.equal(second.text, 'a CPU profile is already being taken\n');
  for (let i = 0; i < 200; i++) await burnCpuForTheProfile();
  const { status, headers, bytes } = await profile;
  assert.equal(status, 200);
  assert.equal(headers['content-type'], undefined);
  // Field 1, length-delimited: the first sample type.
  assert.equal(bytes[0], 0x0a);
  assert(bytes.includes('burnCpuForTheProfile'), 'the busy function is in the string table');
});

test('a heap profile is a gzip pprof message once profiling is active', { timeout: 90_000 }, async () => {
  await using admin = await adminFixture();
  const { text } = await ask(admin.port, '/debug/pprof/heap/profiling?activate=true', { method: 'POST' });
  assert.equal(text, 'heap profiling active: true\n');
  const kept = Array.from({ length: 200_000 }, (_, i) => ({ i }));
  const { status, bytes } = await ask(admin.port, '/debug/pprof/heap');
  assert.equal(status, 200);
  assert(gunzipSync(bytes).includes('inuse_space'));
  assert.equal(kept.length, 200_000);
  const off = await ask(admin.port, '/debug/pprof/heap/profiling?activate=false');
  assert.equal(off.text, 'heap profiling active: false\n');
});

async function burnCpuForTheProfile(): Promise<number> {
  let sum = 0;
  for (let i = 0; i < 1_000_000; i++) sum += Math.sqrt(i);
  await new Promise((resolve) => setImmediate(resolve));
  return sum;
}
