import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apart } from '../../../src/sys/apart.ts';

const bounded = { timeout: 90_000 };

/** As the modules below export it: what is run there has the name of what is named here. */
function work(argument: unknown): unknown {
  return argument;
}

function module(body: string): string {
  return `data:text/javascript,${encodeURIComponent(`export function work(argument) { ${body} }`)}`;
}

test('a computation is done by another thread, on copies', bounded, async () => {
  const argument = { map: new Map([['a', Uint8Array.of(1)]]), big: 1n };
  const body = `
    argument.map.set('thread', process.getBuiltinModule('node:worker_threads').isMainThread);
    return argument;
  `;
  assert.deepEqual(await apart(module(body), work, argument), {
    map: new Map<string, unknown>([
      ['a', Uint8Array.of(1)],
      ['thread', false],
    ]),
    big: 1n,
  });
  assert.equal(argument.map.size, 1);
});

for (const [name, body, problem] of [
  ['throws', "throw new Error('no way')", /no way/],
  ['ends its thread', 'process.exit(3)', /ended with code 3/],
] as const) {
  test(`a computation that ${name} is an error of who asked for it`, bounded, async () => {
    await assert.rejects(apart(module(body), work, undefined), problem);
  });
}
