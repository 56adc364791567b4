import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';

const PIPE = JSON.stringify(new URL('../../../src/sys/pipe.ts', import.meta.url));
/** Takes several, gives one back, and ends as a worker of the agent does. */
const THREAD = `
  import { Pipe } from ${PIPE};
  const pipes = Array.from({ length: 4 }, () => Pipe.take());
  pipes[0].giveBack();
  process.exit(pipes.includes(undefined) ? 1 : 0);
`;

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

test('the pipes of a thread end with it', { timeout: 90_000 }, async () => {
  const before = openPipes();
  const thread = new Worker(new URL(`data:text/javascript,${encodeURIComponent(THREAD)}`));
  assert.deepEqual(await once(thread, 'exit'), [0]);
  assert.deepEqual(
    [...openPipes()].filter((pipe) => !before.has(pipe)),
    [],
  );
});
