import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { FdSink } from '../../../src/telemetry/log-sink.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function logFile(): { fd: number; read: () => string } & Disposable {
  const folder = mkdtempSync(path.join(tmpdir(), 'culvert-log-'));
  const file = path.join(folder, 'log');
  return {
    fd: openSync(file, 'w'),
    read: () => readFileSync(file, 'utf8'),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

test('lines wait for company, and a flush writes them all, in order', () => {
  using file = logFile();
  const sink = new FdSink(file.fd, new FakeClock());
  for (let i = 0; i < 100; i++) sink.write(`line ${i}\n`);
  assert.equal(file.read(), '');
  sink.flushSync();
  assert.equal(file.read(), Array.from({ length: 100 }, (_, i) => `line ${i}\n`).join(''));
});

test('a line waits at most 10 ms', async () => {
  using file = logFile();
  const clock = new FakeClock();
  const sink = new FdSink(file.fd, clock);
  sink.write('lonely\n');
  clock.advance(10);
  await sink[Symbol.asyncDispose]();
  assert.equal(file.read(), 'lonely\n');
});

test('disposing waits until every line is written', async () => {
  using file = logFile();
  {
    await using sink = new FdSink(file.fd, new FakeClock());
    for (let i = 0; i < 50_000; i++) sink.write(`line ${i}\n`);
  }
  assert.equal(file.read().split('\n').length, 50_001);
});

const WRITER = `
  import { FdSink } from ${JSON.stringify(path.resolve('src/telemetry/log-sink.ts'))};
  import { systemClock } from ${JSON.stringify(path.resolve('src/sys/system-clock.ts'))};
  const sink = new FdSink(1, systemClock);
  for (let i = 0; i < 200000; i++) sink.write('line ' + i + ' ' + 'x'.repeat(80) + '\\n');
  process.exitCode = 0;
`;

test('no line is lost to a reader that is slower than the writer, nor at exit', async () => {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', WRITER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let lines = 0;
  for await (const chunk of child.stdout) {
    for (const byte of chunk as Buffer) if (byte === 10) lines++;
  }
  if (child.exitCode === null) await once(child, 'exit');
  assert.equal(child.exitCode, 0);
  assert.equal(lines, 200_000);
});

test('a reader that went away silences the log and does not end the process', async () => {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', WRITER], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  await once(child.stdout, 'data');
  child.stdout.destroy();
  const [code] = await once(child, 'exit');
  assert.equal(complaint, '');
  assert.equal(code, 0);
});

for (const [how, settle] of [
  ['at once', (sink: FdSink) => sink.flushSync()],
  ['in the background', (sink: FdSink) => sink[Symbol.asyncDispose]()],
] as const) {
  test(`a full disk costs the lines of its time and no later ones (written ${how})`, async () => {
    using file = logFile();
    const fd = openSync('/dev/full', 'w');
    const sink = new FdSink(fd, new FakeClock());
    sink.write('lost\n');
    await settle(sink);
    // Space again: the same descriptor leads to a file now.
    closeSync(fd);
    assert.equal(openSync(`/proc/self/fd/${file.fd}`, 'a'), fd);
    sink.write('written\n');
    await settle(sink);
    assert.equal(file.read(), 'written\n');
  });
}
