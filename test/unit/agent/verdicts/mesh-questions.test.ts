import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MeshQuestions } from '../../../../src/agent/verdicts/mesh-questions.ts';
import type { LogFields, Logger } from '../../../../src/base/log.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

function world(fetch: (key: string, signal: AbortSignal) => Promise<void> = () => Promise.resolve()) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const signals: AbortSignal[] = [];
  const logged: string[] = [];
  const warnings: (LogFields | undefined)[] = [];
  const log: Logger = {
    info: (text) => logged.push(`info ${text}`),
    warn: (text, fields) => {
      logged.push(`warn ${text}`);
      warnings.push(fields);
    },
  };
  const demand = {
    fetch: (key: string, signal: AbortSignal) => {
      asked.push(key);
      signals.push(signal);
      return fetch(key, signal);
    },
  };
  return { clock, asked, signals, logged, warnings, questions: new MeshQuestions({ demand, clock, log }) };
}

const NEVER = (): Promise<void> => new Promise(() => undefined);

test('an answer lets the mesh decide', async () => {
  const { questions, asked } = world();
  assert.equal(await questions.ask('pod', '/10.0.0.1'), undefined);
  assert.deepEqual(asked, ['/10.0.0.1']);
});

test('connections that need the same key at once share one question', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { questions, asked } = world(() => promise);
  const all = Promise.all(['pod-a', 'pod-a', 'pod-b'].map((pod) => questions.ask(pod, '/10.0.0.1')));
  resolve();
  assert.deepEqual(await all, [undefined, undefined, undefined]);
  assert.equal(asked.length, 1);
});

test('a scan of the ports of one address is one question in two seconds', async () => {
  const { clock, questions, asked } = world();
  for (let port = 0; port < 1_000; port++) await questions.ask('pod', '/10.0.0.1');
  clock.advance(1_999);
  await questions.ask('pod', '/10.0.0.1');
  assert.equal(asked.length, 1);
  clock.advance(1);
  await questions.ask('pod', '/10.0.0.1');
  assert.equal(asked.length, 2);
});

test('a control plane that does not answer means refusal after 5 s, and the question is taken back', async () => {
  const { clock, questions, signals } = world(NEVER);
  const refusal = questions.ask('pod', '/10.0.0.1');
  await nextTurn();
  clock.advance(4_999);
  assert.equal(signals[0]?.aborted, false);
  clock.advance(1);
  assert.deepEqual(await refusal, {
    code: 'CV-MESH-SILENT',
    text: 'control plane did not answer about /10.0.0.1: no answer within 5 s',
  });
  assert.equal(signals[0]?.aborted, true);
});

test('a control plane that cannot be asked means refusal at once, and is asked again the next time', async () => {
  const { questions, asked } = world(() => Promise.reject(new Error('disconnected')));
  for (const _ of [1, 2]) {
    assert.deepEqual(await questions.ask('pod', '/10.0.0.1'), {
      code: 'CV-MESH-SILENT',
      text: 'control plane did not answer about /10.0.0.1: disconnected',
    });
  }
  assert.equal(asked.length, 2);
});

test('going away and coming back are one line each', async () => {
  let isAway = true;
  const { clock, questions, logged } = world(() => (isAway ? Promise.reject(new Error('away')) : Promise.resolve()));
  for (let n = 0; n < 100; n++) await questions.ask('pod', `/10.0.0.${n}`);
  isAway = false;
  clock.advance(60_000);
  for (let n = 0; n < 100; n++) await questions.ask('pod', `/10.0.0.${n}`);
  assert.deepEqual(logged, [
    'warn control plane does not answer, unknown destinations are refused',
    'info control plane answers again',
  ]);
});

test('a control plane that answers one key and not the next is two lines in ten seconds, which count what they left out', async () => {
  const { clock, questions, logged, warnings } = world((key) =>
    key.startsWith('known') ? Promise.resolve() : Promise.reject(new Error('no')),
  );
  for (let n = 0; n < 50; n++) {
    await questions.ask('pod', `lost ${n}`);
    await questions.ask('pod', `known ${n}`);
  }
  assert.equal(logged.length, 2);
  clock.advance(10_000);
  await questions.ask('pod', 'lost');
  assert.equal(logged.length, 3);
  assert.deepEqual(warnings, [
    { reason: 'CV-MESH-SILENT', key: 'lost 0', error: 'no', leftOut: 0 },
    { reason: 'CV-MESH-SILENT', key: 'lost', error: 'no', leftOut: 49 },
  ]);
});

test('a pod that scans addresses is refused over its rate, and other pods are not', async () => {
  const { clock, questions, asked } = world();
  const codes = new Set<string | undefined>();
  for (let n = 0; n < 10_000; n++) codes.add((await questions.ask('scanner', `/10.1.${n >> 8}.${n & 255}`))?.code);
  assert.deepEqual([...codes], [undefined, 'CV-LIMIT']);
  assert.equal(asked.length, 500);
  assert.equal(await questions.ask('other', '/10.2.0.1'), undefined);
  clock.advance(1_000);
  for (let n = 0; n < 10_000; n++) await questions.ask('scanner', `/10.3.${n >> 8}.${n & 255}`);
  assert.equal(asked.length, 500 + 1 + 100);
});
