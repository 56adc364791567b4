import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { REASONS } from '../../../src/base/reasons.ts';
import { outbound, trafficFixture } from '../telemetry/traffic-fixture.ts';
import { culvert, fakeAgent } from './cli-fixture.ts';

test('a code is explained without an agent, in any case', async () => {
  assert.deepEqual(await culvert(['explain', 'cv-drain', '--admin', '127.0.0.1:1']), {
    code: 0,
    out: `Reason       CV-DRAIN
Cause        the agent is stopping, or the pod is being removed
Decided by   agent
To act       this node: limits, configuration or shutdown
Next step    expected during a restart or un-enrolment
Seen as      response_flags="-" in metrics; HTTP 503 to an HBONE peer
`,
    err: '',
  });
});

test('every code can be explained', async () => {
  for (const [code, { cause, next }] of Object.entries(REASONS)) {
    const ran = await culvert(['explain', code, '-o', 'json']);
    assert.equal(ran.code, 0, code);
    const row = JSON.parse(ran.out);
    assert.deepEqual([row.code, row.cause, row.next], [code, cause, next]);
  }
});

test('a connection is explained by the agent: who, where, why, and what to do', async () => {
  const { traffic, clock } = trafficFixture();
  const record = traffic.open({ ...outbound, id: 'c-9' });
  record.addClientBytes(11);
  clock.advance(12);
  record.close({ code: 'CV-POLICY-DENY', text: 'explicitly denied by: retail/no' });
  const reason = { code: 'CV-POLICY-DENY', ...REASONS['CV-POLICY-DENY'] };
  await using agent = await fakeAgent({ '/explain': { connection: traffic.find('c-9'), reason } });
  assert.deepEqual(await agent.ask(['explain', 'c-9']), {
    code: 0,
    out: `Connection   c-9
State        refused or cut after 12ms
Direction    outbound, mutual TLS (HBONE)
From         10.42.1.7:51840 (shop-6d9f7c5b8-x2x9q.retail, spiffe://cluster.local/ns/retail/sa/shop)
To           10.96.0.12:80 (cart-0.retail, spiffe://cluster.local/ns/retail/sa/cart)
By way of    10.42.2.9:15008
Service      cart.retail.svc.cluster.local
Opened       2026-01-01T00:00:00Z
Traffic      11 B to the server, 0 B to the client
Error        explicitly denied by: retail/no
Reason       CV-POLICY-DENY
Cause        a DENY policy matches this connection
Decided by   policy
To act       nobody: it is denied on purpose
Next step    read the policy named in the error (culvert policies); change its rules or the caller identity
Seen as      response_flags="DENY" in metrics; HTTP 401 to an HBONE peer
`,
    err: '',
  });
  assert.deepEqual(agent.asked, ['GET /explain?id=c-9']);
});

test('an id that the agent does not know is a failure that says where to look', async () => {
  await using agent = await fakeAgent({ '/explain': { error: 'no connection with this id' } });
  const { code, err } = await agent.ask(['explain', 'a b']);
  assert.equal(code, 1);
  assert.match(err, /^culvert: the agent knows no connection "a b": .*\n.*--admin\n.*connection="a b"\n$/);
  assert.deepEqual(agent.asked, ['GET /explain?id=a+b']);
});

test('a tunnel that went away is the doing of its other end, whichever side asks', async () => {
  for (const code of ['CV-TUNNEL-CLOSED', 'CV-TUNNEL-DEAD']) {
    assert.match((await culvert(['explain', code])).out, /^To act +the other end$/m);
  }
});

test('the list has one line per code', async () => {
  const { out } = await culvert(['explain', '--list']);
  const codes = out.split('\n').map((line) => line.split(' ')[0]);
  assert.deepEqual(codes, ['CODE', ...Object.keys(REASONS), '']);
});

test('README.md holds the table that `culvert explain --list --output markdown` prints', async () => {
  assert(existsSync('README.md'), 'README.md is missing');
  const { out } = await culvert(['explain', '--list', '--output', 'markdown']);
  const held = /<!-- reasons:start -->\n(.*?)<!-- reasons:end -->/s.exec(readFileSync('README.md', 'utf8'))?.[1];
  assert.equal(held?.trim(), out.trim(), 'put the output of the command between the markers');
});

test('log lines that an advice tells to look for are logged', () => {
  const sources = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const code = sources
    .filter((file) => file !== 'base/reasons.ts')
    .map((file) => readFileSync(join('src', file), 'utf8'));
  for (const [reason, { next }] of Object.entries(REASONS)) {
    for (const [, line = ''] of next.matchAll(/look for "([^"]+)"/g)) {
      assert(
        code.some((text) => text.includes(line)),
        `${reason} names "${line}", which nothing logs`,
      );
    }
  }
});
