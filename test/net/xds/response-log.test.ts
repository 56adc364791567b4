import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import type { Logger } from '../../../src/base/log.ts';
import { type DeltaDiscoveryResponse, DeltaDiscoveryResponseSchema } from '../../../src/wire/pb/discovery_pb.ts';
import { ResponseLog, type ResponseLogOptions } from '../../../src/xds/response-log.ts';

const TYPE = 'type.googleapis.com/istio.workload.Address';

function place() {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-log-'));
  const warnings: string[] = [];
  const log: Logger = {
    warn: (message) => warnings.push(message),
    info: (message) => warnings.push(message),
  } as Logger;
  const path = join(directory, 'state', 'mesh.xds');
  return {
    path,
    warnings,
    open: (options: Partial<ResponseLogOptions> = {}) =>
      new ResponseLog({ path, scope: 'node-1', maxBytes: 64 * 1024 * 1024, log, ...options }),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true }),
  };
}

function response(resources: Readonly<Record<string, string>>, removed: readonly string[] = [], typeUrl = TYPE) {
  const message = create(DeltaDiscoveryResponseSchema, {
    typeUrl,
    resources: Object.entries(resources).map(([name, version]) => ({
      name,
      version,
      resource: { typeUrl, value: new Uint8Array(Buffer.from(version)) },
    })),
    removedResources: [...removed],
  });
  return toBinary(DeltaDiscoveryResponseSchema, message);
}

function decoded(responses: readonly Uint8Array[]): readonly DeltaDiscoveryResponse[] {
  return responses.map((bytes) => fromBinary(DeltaDiscoveryResponseSchema, bytes));
}

/** Name → version of what was restored. */
function held(responses: readonly Uint8Array[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    decoded(responses).flatMap(({ resources }) => resources.map(({ name, version }) => [name, version])),
  );
}

test('what was accepted is there after a restart, what was removed is not', async () => {
  using at = place();
  {
    await using log = at.open();
    assert.deepEqual(await log.restore(), []);
    log.append(response({ a: '1', b: '1' }));
    log.append(response({ a: '2' }, ['b']));
    log.append(response({}, [], 'other'));
  }
  await using again = at.open();
  const restored = await again.restore();
  assert.deepEqual(held(restored), { a: '2' });
  assert.deepEqual(
    new Set(decoded(restored).map(({ typeUrl }) => typeUrl)),
    new Set([TYPE, 'other']),
    'told to be empty is told',
  );
  assert.equal(statSync(at.path).mode & 0o777, 0o600);
  assert.deepEqual(at.warnings, []);
});

test('a crash in the middle of a write loses that write only', async () => {
  using at = place();
  {
    await using log = at.open();
    log.append(response({ a: '1' }));
    log.append(response({ a: '2' }));
  }
  const whole = readFileSync(at.path);
  for (const cut of [1, 5, 9]) {
    writeFileSync(at.path, whole.subarray(0, whole.length - cut));
    await using log = at.open();
    assert.deepEqual(held(await log.restore()), { a: '1' });
  }
  writeFileSync(at.path, whole);
  appendFileSync(at.path, 'rubbish that is no record');
  await using log = at.open();
  assert.deepEqual(held(await log.restore()), { a: '2' });
  log.append(response({ b: '1' }));
  await log.flushed();
  await using after = at.open();
  assert.deepEqual(held(await after.restore()), { a: '2', b: '1' }, 'what follows the cut counts');
});

test('the state of another node is not used', async () => {
  using at = place();
  {
    await using log = at.open({ scope: 'node-2' });
    log.append(response({ a: '1' }));
  }
  await using log = at.open();
  assert.deepEqual(await log.restore(), []);
  assert.match(at.warnings.join(), /another node/);
});

test('a file over the limit is not read into memory', async () => {
  using at = place();
  {
    await using log = at.open();
    log.append(response({ a: 'x'.repeat(10_000) }));
  }
  await using log = at.open({ maxBytes: 5_000 });
  assert.deepEqual(await log.restore(), []);
  assert.match(at.warnings.join(), /too large/);
});

test('a disk that refuses costs the file and one line, nothing else', async () => {
  using at = place();
  mkdirSync(at.path, { recursive: true });
  {
    await using log = at.open();
    for (let i = 0; i < 10; i += 1) log.append(response({ a: String(i) }));
  }
  assert.deepEqual(at.warnings, ['mesh state is no longer kept on disk']);
});

test('endless changes of few resources do not make the file grow', async () => {
  using at = place();
  {
    await using log = at.open({ compactBytes: 20_000 });
    for (let i = 0; i < 2_000; i += 1) log.append(response({ [`name-${i % 5}`]: String(i).repeat(20) }));
  }
  assert(existsSync(at.path));
  assert(statSync(at.path).size < 60_000, `${statSync(at.path).size} bytes`);
  await using log = at.open();
  assert.deepEqual(Object.keys(held(await log.restore())).length, 5);
});

test('any bytes in the place of the file are read without an error', async () => {
  using at = place();
  await using empty = at.open();
  await empty.restore();
  const first = readFileSync(at.path);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 100 }), fc.boolean(), async (bytes, hasHeader) => {
      writeFileSync(at.path, hasHeader ? Buffer.concat([first, bytes]) : bytes);
      await using log = at.open();
      assert.deepEqual(await log.restore(), []);
    }),
    { numRuns: 50 },
  );
});

test('a file without a name goes to the next process as a descriptor, rewritten or not, and leaves nothing behind', async () => {
  using at = place();
  await using former = at.open({ isNameless: true, compactBytes: 64 });
  assert.deepEqual(await former.restore(), []);
  for (let version = 1; version <= 20; version++) former.append(response({ a: String(version), b: '1' }));
  former.append(response({}, ['b']));
  const inheritedFd = await former.descriptor();
  assert.ok(inheritedFd !== undefined && !existsSync(at.path));

  await using next = at.open({ isNameless: true, inheritedFd });

  assert.deepEqual(held(await next.restore()), { a: '20' });
  next.append(response({ c: '1' }));
  const again = await next.descriptor();
  await using last = at.open({ inheritedFd: again });
  assert.deepEqual(held(await last.restore()), { a: '20', c: '1' });
  assert.ok(existsSync(at.path), 'this one keeps it on disk');
  assert.deepEqual(at.warnings, []);
});

test('what is inherited of another node is not used, and what is on disk is', async () => {
  using at = place();
  await using ours = at.open();
  ours.append(response({ a: '1' }));
  await using others = at.open({ isNameless: true, path: `${at.path}-2`, scope: 'node-2' });
  others.append(response({ b: '1' }));
  await ours.flushed();
  await using log = at.open({ inheritedFd: await others.descriptor() });
  assert.deepEqual(held(await log.restore()), { a: '1' });
});

test('a log whose place is the one of another process writes no more', async () => {
  using at = place();
  await using log = at.open();
  log.append(response({ a: '1' }));
  await log.flushed();
  log.retire();
  const before = readFileSync(at.path);
  log.append(response({ b: '1' }));
  await log.flushed();
  assert.deepEqual(readFileSync(at.path), before);
});

/** Another process in which no file may grow: as full as a disk can be. Then the collector of garbage looks for what was left open. */
const ON_A_FULL_DISK = `
  import { ResponseLog } from './src/xds/response-log.ts';
  const log = { warn: (message) => console.log(message) };
  const archive = new ResponseLog({ path: process.argv[1], scope: 'node-1', maxBytes: 1048576, log });
  console.log((await archive.restore()).length);
  for (let round = 0; round < 5; round++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    gc();
  }
  console.log('alive');
`;

test('on a full disk the state that was kept is used, nothing more is kept, and the process lives on', {
  timeout: 60_000,
}, async () => {
  using here = place();
  {
    await using before = here.open();
    await before.restore();
    before.append(response({ a: '1' }));
    await before.flushed();
  }
  const command = ['-c', 'ulimit -f 0 && exec "$0" "$@"', process.execPath, '--expose-gc', '--input-type=module'];
  const child = spawn('bash', [...command, '-e', ON_A_FULL_DISK, here.path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const said = Buffer.concat(await child.stdout.toArray()).toString();
  assert.equal(said, 'mesh state is no longer kept on disk\n1\nalive\n');
  assert.deepEqual([existsSync(here.path), existsSync(`${here.path}.new`)], [false, false]);
});
