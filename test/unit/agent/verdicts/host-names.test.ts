import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { HostNames } from '../../../../src/agent/verdicts/host-names.ts';
import type { HostRecord } from '../../../../src/sys/host-lookup.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

function world(answer: (hostname: string) => Promise<readonly HostRecord[]>) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const names = new HostNames((hostname) => {
    asked.push(hostname);
    return answer(hostname);
  }, clock);
  return { clock, asked, names };
}

const record = (ip: string, ttlSeconds: number): HostRecord => ({ ip, ttlMs: ttlSeconds * 1_000 });

for (const [claim, ttls, keptMs] of [
  ['an answer counts as long as its TTL', [60], 60_000],
  ['the shortest of several TTLs decides', [60, 20, 40], 20_000],
  ['a TTL of 0 counts as a second, so that not every connection asks', [0], 1_000],
  ['a TTL of a day counts as five minutes', [86_400], 300_000],
] as const) {
  test(claim, async () => {
    const { clock, asked, names } = world(async () => ttls.map((ttl, n) => record(`192.0.2.${n}`, ttl)));
    const first = await names.addressesOf('a.example.com');
    assert.deepEqual(
      first,
      ttls.map((_, n) => `192.0.2.${n}`),
    );
    clock.advance(keptMs - 1);
    assert.deepEqual(await names.addressesOf('a.example.com'), first);
    assert.equal(asked.length, 1);
    clock.advance(1);
    await names.addressesOf('a.example.com');
    assert.equal(asked.length, 2);
  });
}

test('connections that need one name at once share one question', async () => {
  const { promise, resolve } = Promise.withResolvers<readonly HostRecord[]>();
  const { asked, names } = world(() => promise);
  const all = Promise.all([1, 2, 3].map(() => names.addressesOf('a.example.com')));
  resolve([record('192.0.2.1', 60), record('192.0.2.1', 60)]);
  assert.deepEqual(await all, [['192.0.2.1'], ['192.0.2.1'], ['192.0.2.1']]);
  assert.deepEqual(asked, ['a.example.com']);
});

test('a name without address is not asked for again for 5 s', async () => {
  const { clock, asked, names } = world(async () => []);
  assert.deepEqual(await names.addressesOf('a.example.com'), []);
  clock.advance(4_999);
  await names.addressesOf('a.example.com');
  assert.equal(asked.length, 1);
  clock.advance(1);
  await names.addressesOf('a.example.com');
  assert.equal(asked.length, 2);
});

test('a failure is told to everybody who waits and not tried again for 5 s', async () => {
  const { clock, asked, names } = world(() => Promise.reject(new Error('SERVFAIL')));
  const both = [names.addressesOf('a.example.com'), names.addressesOf('a.example.com')];
  for (const one of both) await assert.rejects(one, /SERVFAIL/);
  clock.advance(4_999);
  await assert.rejects(names.addressesOf('a.example.com'), /SERVFAIL/);
  assert.equal(asked.length, 1);
  clock.advance(1);
  await assert.rejects(names.addressesOf('a.example.com'), /SERVFAIL/);
  assert.equal(asked.length, 2);
});

test('a resolver that never answers fails after 5 s', async () => {
  const { clock, names } = world(() => new Promise(() => undefined));
  const failed = assert.rejects(names.addressesOf('a.example.com'), { code: 'CV-NO-ADDRESS' });
  await nextTurn();
  clock.advance(5_000);
  await failed;
});

test('however many names are asked for, a bounded number is remembered', async () => {
  const { asked, names } = world(async () => [record('192.0.2.1', 300)]);
  for (let n = 0; n < 20_000; n++) await names.addressesOf(`host-${n}.example.com`);
  asked.length = 0;
  for (let n = 0; n < 20_000; n++) await names.addressesOf(`host-${n}.example.com`);
  assert(asked.length >= 20_000 - 2 * 4_096, `${asked.length} of 20,000 asked again`);
});
