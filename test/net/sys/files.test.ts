import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { makeDirectory, readBounded, watchPath, writeAtomically } from '../../../src/sys/files.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const bounded = { timeout: 90_000 };

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'culvert-files-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Calls and waits for the calls of `onChange`. */
function changes(t: TestContext, path: string): { next(): Promise<void> } {
  let count = 0;
  let awaited = 0;
  let wake = (): void => {};
  const onChange = (): void => {
    count += 1;
    wake();
  };
  const watcher = watchPath(path, { clock: systemClock, debounceMs: 5, pollMs: 60_000, onChange });
  t.after(() => watcher[Symbol.dispose]());
  // The clock does not keep the process alive, and neither do the watches.
  const alive = setInterval(() => {}, 1_000);
  t.after(() => clearInterval(alive));
  return {
    async next() {
      awaited += 1;
      while (count < awaited) await new Promise<void>((resolve) => (wake = resolve));
      awaited = count;
    },
  };
}

test(
  'a file rewritten in place, replaced by rename, deleted and made anew is noticed each time',
  bounded,
  async (t) => {
    const path = join(directory(t), 'list.yaml');
    writeFileSync(path, 'one');
    const seen = changes(t, path);

    writeFileSync(path, 'two');
    await seen.next();
    writeFileSync(`${path}.new`, 'six');
    renameSync(`${path}.new`, path);
    await seen.next();
    rmSync(path);
    await seen.next();
    writeFileSync(path, 'ten');
    await seen.next();
  },
);

test('a ConfigMap swap (the symlink ..data is replaced) is noticed', bounded, async (t) => {
  const mount = directory(t);
  for (const version of ['..1', '..2']) {
    mkdirSync(join(mount, version));
    writeFileSync(join(mount, version, 'list.yaml'), version);
  }
  symlinkSync('..1', join(mount, '..data'));
  symlinkSync('..data/list.yaml', join(mount, 'list.yaml'));
  const seen = changes(t, join(mount, 'list.yaml'));

  symlinkSync('..2', join(mount, '..data_tmp'));
  renameSync(join(mount, '..data_tmp'), join(mount, '..data'));
  await seen.next();

  assert.equal(readFileSync(join(mount, 'list.yaml'), 'utf8'), '..2');
});

test('files coming to and leaving a directory are noticed', bounded, async (t) => {
  const path = directory(t);
  const seen = changes(t, path);
  writeFileSync(join(path, 'a.yaml'), 'a');
  await seen.next();
  rmSync(join(path, 'a.yaml'));
  await seen.next();
});

test('without any event a change is found by the next poll, and no change is no news', (t) => {
  const path = join(directory(t), 'late', 'list.yaml');
  const clock = new FakeClock();
  let count = 0;
  using _watcher = watchPath(path, { clock, pollMs: 10_000, onChange: () => (count += 1) });
  clock.advance(10_000);
  assert.equal(count, 0);

  mkdirSync(join(path, '..'));
  writeFileSync(path, 'x');
  clock.advance(10_000);
  clock.advance(10_000);

  assert.equal(count, 1);
});

test('a path that has become a circle of symlinks is a change, and no crash', (t) => {
  const path = join(directory(t), 'list.yaml');
  writeFileSync(path, 'x');
  const clock = new FakeClock();
  let count = 0;
  using _watcher = watchPath(path, { clock, pollMs: 10_000, onChange: () => (count += 1) });
  rmSync(path);
  symlinkSync(path, path);
  clock.advance(20_000);
  assert.equal(count, 1);

  rmSync(path);
  writeFileSync(path, 'x');
  clock.advance(20_000);
  assert.equal(count, 2);
});

test('a bounded read takes a file up to its limit and nothing that is no file', (t) => {
  const path = join(directory(t), 'f');
  writeFileSync(path, '12345');
  assert.equal(readBounded(path, 5).toString(), '12345');
  assert.throws(() => readBounded(path, 4), /over 4 bytes/);
  // Longer than the size that the system tells.
  assert.match(readBounded('/proc/self/status', 1_000_000).toString(), /^Name:[^]*VmRSS:[^]*\n$/);
  assert.throws(() => readBounded('/proc/self/status', 100), /over 100 bytes/);
  assert.throws(() => readBounded(join(path, '..'), 100), /not a regular file|EISDIR/);
});

test('a FIFO that nobody writes to is no file, and does not hold up the thread', (t) => {
  const fifo = join(directory(t), 'fifo');
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  const files = new URL('../../../src/sys/files.ts', import.meta.url);
  const program = `import { readBounded } from ${JSON.stringify(files.href)}; readBounded(${JSON.stringify(fifo)}, 10);`;
  // In a process of its own: a thread that waits in `open` cannot be woken.
  const { stderr, signal } = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  assert.equal(signal, null);
  assert.match(stderr, /fifo is not a regular file/);
});

test('an atomic write is private and leaves no other file behind, also when it fails', (t) => {
  const path = directory(t);
  writeAtomically(join(path, 'key.pem'), 'secret');
  assert.equal(statSync(join(path, 'key.pem')).mode & 0o777, 0o600);
  writeAtomically(join(path, 'key.pem'), 'newer');
  mkdirSync(join(path, 'taken'));
  assert.throws(() => writeAtomically(join(path, 'taken'), 'x'));

  assert.equal(readFileSync(join(path, 'key.pem'), 'utf8'), 'newer');
  assert.deepEqual(readdirSync(path).sort(), ['key.pem', 'taken']);
});

test('a directory is made with those above it, and is no error when it is there', (t) => {
  const root = directory(t);
  const path = join(root, 'a', 'b', 'c');
  makeDirectory(path);
  makeDirectory(path);
  assert.equal(statSync(path).mode & 0o777, 0o700);
});

test('where no directory can be made that is an error, and no endless loop', bounded, (t) => {
  const root = directory(t);
  writeFileSync(join(root, 'file'), '');
  symlinkSync('nowhere', join(root, 'dangling'));
  for (const path of [join(root, 'file', 'a'), join(root, 'dangling', 'a'), '/proc/nope', '/proc/nope/a']) {
    assert.throws(() => makeDirectory(path), { code: /^(ENOTDIR|EEXIST|ENOENT)$/ });
  }
});
