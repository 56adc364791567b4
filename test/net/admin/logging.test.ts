import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LOG_SCOPES } from '../../../src/telemetry/log-filter.ts';
import { adminFixture } from './admin-fixture.ts';
import { ask } from './http.ts';

const OFF = 'hickory_server::server=off';

const table: readonly { claim: string; steps: readonly string[]; status: number; filter?: string; starts?: string }[] =
  [
    { claim: 'no parameter lists the filter', steps: [''], status: 200, filter: 'info' },
    { claim: 'an empty level lists the filter', steps: ['?level='], status: 200, filter: 'info' },
    { claim: 'a level replaces the default', steps: ['?level=debug'], status: 200, filter: 'debug' },
    { claim: 'a scoped level is added', steps: ['?level=access=debug,info'], status: 200, filter: 'access=debug,info' },
    { claim: 'a colon works too', steps: ['?level=access:debug,info'], status: 200, filter: 'access=debug,info' },
    {
      claim: 'levels add up',
      steps: ['?level=access=debug', '?level=xds=trace'],
      status: 200,
      filter: 'access=debug,xds=trace,info',
    },
    { claim: 'reset restores the start', steps: ['?level=access=debug,warn', '?reset'], status: 200, filter: 'info' },
    { claim: 'reset has no value to look at', steps: ['?level=warn', '?reset=false'], status: 200, filter: 'info' },
    {
      claim: 'reset and a level start from the start',
      steps: ['?level=access=debug', '?level=warn&reset'],
      status: 200,
      filter: 'warn',
    },
    { claim: 'the last of several levels wins', steps: ['?level=warn&level=error'], status: 200, filter: 'error' },
    { claim: 'off is a level', steps: ['?level=off'], status: 200, filter: 'off' },
    {
      claim: 'a word that is no level is refused',
      steps: ['?level=loud'],
      status: 400,
      starts: 'Invalid level provided: loud\n\nusage: POST /logging',
    },
    { claim: 'upper case is refused', steps: ['?level=INFO'], status: 400, starts: 'Invalid level provided: INFO\n' },
    {
      claim: 'an unknown level of a scope is refused',
      steps: ['?level=access=loud'],
      status: 400,
      starts: 'Failed to set new level: ',
    },
  ];

for (const { claim, steps, status, filter, starts } of table) {
  test(`logging: ${claim}`, async () => {
    await using admin = await adminFixture();
    let reply = { status: 0, text: '' };
    for (const step of steps) reply = await ask(admin.port, `/logging${step}`, { method: 'POST' });
    assert.equal(reply.status, status);
    if (filter !== undefined) assert.equal(reply.text, `current log level is ${expected(filter)}\n`);
    if (starts !== undefined) assert(reply.text.startsWith(starts), reply.text);
  });
}

test('logging: any other method is refused with help', async () => {
  await using admin = await adminFixture();
  const reply = await ask(admin.port, '/logging?level=debug');
  assert.equal(reply.status, 405);
  assert(reply.text.startsWith('Invalid HTTP method\n\nusage: POST /logging'));
});

/** The directive that is always there, before shorter targets. */
function expected(filter: string): string {
  return `${OFF},${filter}`;
}

for (const scope of LOG_SCOPES) {
  test(`logging: ${scope} can be set by itself, and the help names it`, async () => {
    await using admin = await adminFixture();
    const reply = await ask(admin.port, `/logging?level=${scope}=trace`, { method: 'POST' });
    assert.equal(reply.text, `current log level is ${expected(`${scope}=trace,info`)}\n`);
    const { text } = await ask(admin.port, '/logging');
    assert.match(text, new RegExp(`mod:\\t.*\\b${scope}\\b`));
  });
}
