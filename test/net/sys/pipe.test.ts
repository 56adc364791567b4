import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';

const PIPE = JSON.stringify(new URL('../../../src/sys/pipe.ts', import.meta.url));
const ENDS = {
  'ends by itself': 'process.exit();',
  'is terminated':
    "import('node:worker_threads').then(({ parentPort }) => parentPort.on('message', () => {}).postMessage('has pipes'));",
};

/** Takes several, gives one back, and ends. */
function thread(end: string): Worker {
  const code = `
    import { Pipe } from ${PIPE};
    const pipes = Array.from({ length: 4 }, () => Pipe.take());
    pipes[0].giveBack();
    if (pipes.includes(undefined)) throw new Error('no pipe');
    ${end}
  `;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
}

function newSince(before: ReadonlySet<string>): number {
  return [...openPipes()].filter((pipe) => !before.has(pipe)).length;
}

/** Pipes that this process has open, by their inodes. */
function openPipes(): ReadonlySet<string> {
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return new Set(targets.filter((target) => target.startsWith('pipe:')));
}

for (const [how, end] of Object.entries(ENDS)) {
  test(`the pipes of a thread that ${how} end with it`, { timeout: 90_000 }, async () => {
    const before = openPipes();
    const worker = thread(end);
    const exited = once(worker, 'exit');
    if (how === 'is terminated') {
      await once(worker, 'message');
      assert.equal(newSince(before) >= 4, true);
      await worker.terminate();
    }
    assert.deepEqual(await exited, [how === 'is terminated' ? 1 : 0]);
    assert.equal(newSince(before), 0);
  });
}
