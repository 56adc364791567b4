import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { takeRunLock } from '../../../src/sys/run-lock.ts';

const HOLDER = `
  import { takeRunLock } from './src/sys/run-lock.ts';
  globalThis.held = takeRunLock(process.argv[1]);
  console.log('held');
  setInterval(() => {}, 1000);
`;

test('a second agent is refused with the pid of the first, and let in once that died', {
  timeout: 90_000,
}, async (t) => {
  const runDir = mkdtempSync(join(tmpdir(), 'culvert-lock-'));
  t.after(() => rmSync(runDir, { recursive: true }));
  const holder = spawn(process.execPath, ['--input-type=module', '-e', HOLDER, runDir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => holder.kill('SIGKILL'));
  await once(holder.stdout, 'data');

  assert.throws(
    () => takeRunLock(runDir),
    (error) => error instanceof MeshError && error.code === 'CV-AGENT-RUNNING' && error.fields['pid'] === holder.pid,
  );
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  using _lock = takeRunLock(runDir);
});

test('a disposed lock is free again and a run directory that cannot be made is named', (t) => {
  const runDir = mkdtempSync(join(tmpdir(), 'culvert-lock-'));
  t.after(() => rmSync(runDir, { recursive: true }));
  takeRunLock(runDir)[Symbol.dispose]();
  using _again = takeRunLock(runDir);

  assert.throws(
    () => takeRunLock('/proc/nowhere'),
    (error) => error instanceof MeshError && error.code === 'CV-SYS' && error.message.includes('run directory'),
  );
});

test('a full disk, which takes no pid, keeps nobody from the lock', { timeout: 90_000 }, async (t) => {
  const runDir = mkdtempSync(join(tmpdir(), 'culvert-lock-'));
  t.after(() => rmSync(runDir, { recursive: true }));
  // No file may grow: as full as a disk can be.
  const full = ['-c', 'ulimit -f 0 && exec "$0" "$@"', process.execPath, '--input-type=module', '-e', HOLDER, runDir];
  const holder = spawn('bash', full, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => holder.kill('SIGKILL'));
  const [said] = await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')]);
  assert.match(String(said), /^held/);

  assert.throws(() => takeRunLock(runDir), {
    code: 'CV-AGENT-RUNNING',
    message: `an agent that holds ${join(runDir, 'agent.lock')} already serves this node`,
  });
});
