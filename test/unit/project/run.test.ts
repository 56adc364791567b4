/** `scripts/run.mjs`, which every npm script goes through, behaves like the program it starts. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const RUN = 'scripts/run.mjs';

test('the started program is the pinned Node and gets its arguments untouched', () => {
  const code = 'console.log(JSON.stringify([process.version, ...process.argv.slice(1)]))';
  const { stdout } = spawnSync('node', [RUN, '-e', code, '--', 'a b', '$HOME', ''], { encoding: 'utf8' });
  const pinned = JSON.parse(readFileSync('package.json', 'utf8')) as {
    readonly optionalDependencies: Readonly<Record<string, string>>;
  };
  const version = `v${pinned.optionalDependencies[`node-linux-${process.arch}`]}`;
  assert.deepEqual(JSON.parse(stdout), [version, 'a b', '$HOME', '']);
});

test('the exit code of the program is passed on', () => {
  assert.equal(spawnSync('node', [RUN, '-e', 'process.exit(78)']).status, 78);
});

test('the death of the program by a signal is an exit code of 128 and the signal', () => {
  assert.equal(spawnSync('node', [RUN, '-e', 'process.kill(process.pid, "SIGKILL")']).status, 128 + 9);
});

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`${signal} reaches the program, which may finish its work`, { timeout: 30_000 }, async () => {
    const code = `setInterval(() => {}, 1e6); process.on('${signal}', () => process.exit(7)); console.log('up')`;
    const child = spawn('node', [RUN, '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    child.kill(signal);
    assert.deepEqual(await once(child, 'exit'), [7, null]);
  });
}

test('two runs at once set up one after the other and both work', async () => {
  const runs = [1, 2, 3].map(() => spawn('node', [RUN, '-e', ''], { stdio: 'ignore' }));
  const ends = await Promise.all(runs.map((child) => once(child, 'exit')));
  assert.deepEqual(
    ends.map(([code]) => code as unknown),
    [0, 0, 0],
  );
});

for (const lock of ['package-lock.json', 'scripts/tools/package-lock.json']) {
  test(`${lock} works with any registry: it names no host, and every package has its hash`, () => {
    const text = readFileSync(lock, 'utf8');
    const { packages } = JSON.parse(text) as { readonly packages: Readonly<Record<string, { integrity?: string }>> };
    assert(!text.includes('"resolved"'));
    for (const [name, entry] of Object.entries(packages)) if (name !== '') assert(entry.integrity !== undefined, name);
  });
}
