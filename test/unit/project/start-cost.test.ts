/** What a start of the agent must not bring along. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const PROGRAM = `
  await import('./src/cli/agent.ts');
  await import('./src/agent/workers/worker.ts');
  console.log(process.moduleLoadList.filter((name) => name.includes('undici')).join());
`;

test('the program of the agent does not load undici: see sys/http.ts', () => {
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', PROGRAM], {
    encoding: 'utf8',
  });
  assert.equal(stdout, '\n', stderr);
});
