import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { withOwnCompiler } from '../../../src/sys/own-compiler.ts';

/** Tells whether V8's helpers compile for the thread that runs it. */
const PROGRAM = "require('node:worker_threads').parentPort.postMessage(%IsConcurrentRecompilationSupported())";

const bounded = { timeout: 60_000 };
const start = (): Worker => new Worker(PROGRAM, { eval: true });

async function hasHelpers(thread: Worker): Promise<boolean> {
  // Both may come in one turn.
  const [[answer]] = (await Promise.all([once(thread, 'message'), once(thread, 'exit')])) as [[boolean], unknown];
  return answer;
}

setFlagsFromString('--allow-natives-syntax');

test('a thread compiles its code itself, and those that begin later have helpers again', bounded, async () => {
  assert.equal(await hasHelpers(start()), true);
  const [one, other] = [withOwnCompiler(start), withOwnCompiler(start)];
  assert.deepEqual(await Promise.all([hasHelpers(one), hasHelpers(other)]), [false, false]);
  assert.equal(await hasHelpers(start()), true);
});

test('a thread that cannot be started, or ends before it is there, takes no helpers from others', bounded, async () => {
  const failing = (): Worker => new Worker('not a path');
  assert.throws(() => withOwnCompiler(failing), { code: 'ERR_WORKER_PATH' });
  assert.equal(await hasHelpers(start()), true);
  await withOwnCompiler(start).terminate();
  assert.equal(await hasHelpers(start()), true);
});
