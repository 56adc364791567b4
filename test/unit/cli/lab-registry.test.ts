import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { demoCommand } from '../../../src/cli/demo.ts';
import { registerLab, removeLab, removeStaleLabs } from '../../../src/cli/lab/registry.ts';
import { run } from '../../../src/cli/program.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const REGISTRY = new URL('../../../src/cli/lab/registry.ts', import.meta.url).href;
/** Removes stale labs again and again, until its input ends. */
const SWEEPER = `
  import { removeStaleLabs } from ${JSON.stringify(REGISTRY)};
  process.stdin.on('end', () => process.exit()).resume();
  process.stdout.write('sweeping');
  setInterval(() => { for (let i = 0; i < 100; i++) removeStaleLabs(); }, 0);
`;
const LABS = 300;

test('a lab that another process registers at this moment is not stale', { skip: skipWithoutRoot }, async () => {
  const sweeper = spawn(process.execPath, ['--input-type=module', '-e', SWEEPER], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    await once(sweeper.stdout, 'data');
    for (let i = 0; i < LABS; i++) {
      const id = (0xfff000 + i).toString(16);
      const folder = registerLab(id);
      assert(existsSync(folder), id);
      removeLab(id);
    }
  } finally {
    sweeper.stdin.end();
    await once(sweeper, 'close');
  }
  removeStaleLabs();
});

test('cleaning a lab that nobody kept is wrong usage, and says which there are', {
  skip: skipWithoutRoot,
}, async () => {
  for (const id of ['nosuch', '../../tmp', 'fffffe']) {
    let err = '';
    const terminal = {
      env: {},
      isTty: false,
      out: () => {},
      err: (text: string) => void (err += text),
      nowMs: () => 0,
    };
    const roles = () => Promise.resolve([demoCommand()]);
    assert.equal(await run(['demo', '--clean', id], { version: '1', terminal, roles }), 2);
    assert.ok(err.startsWith(`culvert: no lab "${id}" was kept; there are: `), err);
  }
});
