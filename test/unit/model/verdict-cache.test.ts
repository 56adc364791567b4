import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Generation } from '../../../src/model/generation.ts';
import type { InboundQuestion, OutboundQuestion, OutboundVerdict } from '../../../src/model/verdict.ts';
import {
  DeckCache,
  DNS_RULES,
  FIRST_HAND,
  type Hand,
  InboundCache,
  OUTBOUND_RULES,
} from '../../../src/model/verdict-cache.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { seeded } from './sample-mesh.ts';

const LABELS = { reporter: 'source', securityPolicy: 'unknown' } as const;
const MAX_AGE_MS = 30_000;

const dialled = (target: number): OutboundQuestion => ({
  podUid: 'p',
  client: { ip: '10.0.0.1', port: 40_000 },
  target: { ip: '10.1.0.1', port: target },
});

const called = (port: number): InboundQuestion => ({
  podUid: 'p',
  connectionId: 'c',
  peer: { ip: '10.0.0.1', port: 40_000 },
  local: { ip: '10.0.0.2', port },
});

/** A verdict that says when it was made: the number is its port. */
function verdict(serial: number): OutboundVerdict {
  return { kind: 'plaintext', address: { ip: '10.0.0.9', port: serial }, labels: LABELS };
}

function serialOf(made: OutboundVerdict | undefined): number | undefined {
  return made?.kind === 'plaintext' ? made.address.port : undefined;
}

function hand(serials: readonly number[], generation: number, isChoice = true): Hand<OutboundVerdict> {
  const [first = 0, ...rest] = serials;
  return { verdicts: [verdict(first), ...rest.map(verdict)], isChoice, isRepeatable: true, generation };
}

function caches() {
  const clock = new FakeClock();
  const generation = new Generation();
  const left: number[] = [];
  const outbound = new DeckCache(OUTBOUND_RULES, { clock, generation, random: seeded(1) });
  const inbound = new InboundCache({ clock, generation }, (ticket) => left.push(ticket));
  return { clock, generation, left, outbound, inbound };
}

/** `late`: the generation moves while the answer is on its way. */
const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('ask' as const), target: fc.nat(2), isLate: fc.boolean(), isChoice: fc.boolean() }),
    fc.record({ kind: fc.constant('change' as const) }),
    fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(1, 10_000, MAX_AGE_MS) }),
  ),
  { maxLength: 60 },
);

test('no answer is older than the last change, nor than its age allows, whatever happens in between', () => {
  fc.assert(
    fc.property(steps, (all) => {
      const { clock, generation, outbound, inbound } = caches();
      const born = new Map<number, { readonly generation: number; readonly ms: number }>();
      let serial = 0;
      const make = (): number => {
        born.set(++serial, { generation: generation.current, ms: clock.monotonicMs() });
        return serial;
      };
      const check = (used: number | undefined): void => {
        const origin = used === undefined ? undefined : born.get(used);
        if (origin === undefined) return;
        assert.equal(origin.generation, generation.current);
        assert(clock.monotonicMs() - origin.ms < MAX_AGE_MS);
      };
      for (const step of all) {
        if (step.kind === 'change') generation.advance();
        else if (step.kind === 'wait') clock.advance(step.ms);
        else {
          const dealt = outbound.deal(dialled(step.target));
          check(serialOf(dealt?.verdict));
          const ticket = inbound.get(called(step.target))?.ticket;
          check(ticket);
          const made = { generation: generation.current, serials: [make(), make()], ticket: make() };
          if (step.isLate) generation.advance();
          if (dealt === undefined)
            outbound.add(dialled(step.target), hand(made.serials, made.generation, step.isChoice), 1);
          else if (dealt.wanted > 0) outbound.add(dialled(step.target), hand(made.serials, made.generation), 0);
          const accepted = {
            verdict: { kind: 'accept', address: { ip: '10.0.0.2', port: 1 }, labels: LABELS },
          } as const;
          if (ticket === undefined)
            inbound.add(called(step.target), { ...accepted, ticket: made.ticket }, made.generation);
        }
      }
    }),
    { numRuns: 1_000 },
  );
});

test('every ticket that was added is in the cache or was said to have left it, never both', () => {
  fc.assert(
    fc.property(steps, (all) => {
      const { clock, generation, inbound, left } = caches();
      const verdictOf = { kind: 'accept', address: { ip: '10.0.0.2', port: 1 }, labels: LABELS } as const;
      let added = 0;
      for (const step of all) {
        if (step.kind === 'change') generation.advance();
        else if (step.kind === 'wait') clock.advance(step.ms);
        else if (inbound.get(called(step.target)) === undefined) {
          inbound.add(called(step.target), { verdict: verdictOf, ticket: ++added }, generation.current);
        } else if (step.isLate) {
          inbound.add(called(step.target), { verdict: verdictOf, ticket: ++added }, generation.current - 1);
        }
      }
      const held = [0, 1, 2].flatMap((target) => inbound.get(called(target))?.ticket ?? []);
      assert.equal(new Set(left).size, left.length);
      assert.deepEqual(
        [...left, ...held].sort((a, b) => a - b),
        Array.from({ length: added }, (_, at) => at + 1),
      );
    }),
  );
});

test('a verdict that chance had part in is dealt once, while fresh ones come in time', () => {
  const { outbound, generation } = caches();
  const question = dialled(80);
  const used: (number | undefined)[] = [];
  let serial = 0;
  const draw = (count: number): number[] => Array.from({ length: count }, () => ++serial);
  for (let connection = 0; connection < 500; connection++) {
    const dealt = outbound.deal(question);
    if (dealt === undefined) {
      const first = draw(FIRST_HAND);
      outbound.add(question, hand(first, generation.current), 1);
      used.push(first[0]);
      continue;
    }
    used.push(serialOf(dealt.verdict));
    if (dealt.wanted > 0) outbound.add(question, hand(draw(dealt.wanted), generation.current), 0);
  }
  assert.equal(new Set(used).size, 500);
  assert(serial < 700, `${serial} drawn for 500`);
});

test('when fresh verdicts do not come, any of those dealt is dealt again, and one request is under way', () => {
  const { outbound, generation } = caches();
  const question = dialled(80);
  outbound.add(question, hand([1, 2, 3, 4, 5, 6, 7, 8], generation.current), 0);
  const dealt = Array.from({ length: 200 }, () => outbound.deal(question));
  assert.equal(dealt.filter((one) => one !== undefined && one.wanted > 0).length, 1);
  assert.deepEqual(
    dealt.slice(0, 8).map((one) => serialOf(one?.verdict)),
    [1, 2, 3, 4, 5, 6, 7, 8],
  );
  assert.equal(new Set(dealt.slice(8).map((one) => serialOf(one?.verdict))).size, 8);
  outbound.failed(question);
  assert((outbound.deal(question)?.wanted ?? 0) > 0, 'after a failure the next one asks again');
});

test('a verdict without chance serves every connection', () => {
  const { outbound, generation } = caches();
  outbound.add(dialled(80), hand([1], generation.current, false), 1);
  for (let connection = 0; connection < 50; connection++) {
    assert.deepEqual(outbound.deal(dialled(80)), { verdict: verdict(1), wanted: 0 });
  }
});

test('a refusal is asked for again each time', () => {
  const { outbound, generation } = caches();
  const refusal: OutboundVerdict = { kind: 'refuse', refusal: { code: 'CV-NO-ENDPOINT', text: 'no healthy upstream' } };
  outbound.add(
    dialled(80),
    { verdicts: [refusal], isChoice: false, isRepeatable: true, generation: generation.current },
    1,
  );
  assert.equal(outbound.deal(dialled(80)), undefined);
});

test('a verdict that rests on more than the mesh is asked for again each time', () => {
  const { outbound, generation } = caches();
  outbound.add(dialled(80), { ...hand([1, 2], generation.current), isRepeatable: false }, 1);
  assert.equal(outbound.deal(dialled(80)), undefined);
});

test('an answer of DNS with very many addresses is asked for each time', () => {
  const { clock, generation } = caches();
  const cache = new DeckCache(DNS_RULES, { clock, generation, random: seeded(1) });
  const client = { pod: 'p', namespace: 'default', canonicalName: 'p', canonicalRevision: 'v1' };
  for (const [name, count, isKept] of [
    ['few', 3, true],
    ['many', 1_000, false],
  ] as const) {
    const question = { podUid: 'p', name, type: 'A' } as const;
    const addresses = Array.from({ length: count }, (_, at) => `10.0.${at >> 8}.${at & 255}`);
    const verdict = { kind: 'answer', client, result: 'success', addresses } as const;
    cache.add(
      question,
      { verdicts: [verdict], isChoice: false, isRepeatable: true, generation: generation.current },
      1,
    );
    assert.equal(cache.deal(question) !== undefined, isKept);
  }
});

test('a question with very long headers is asked each time: keeping many would fill the memory', () => {
  const { inbound, generation, left } = caches();
  const accept = { kind: 'accept', address: { ip: '10.0.0.2', port: 1 }, labels: LABELS } as const;
  for (const [ticket, chars, isKept] of [
    [1, 900, true],
    [2, 60_000, false],
  ] as const) {
    const question = { ...called(ticket), hbone: { authority: '10.0.0.2:80', baggage: ['x'.repeat(chars)] } };
    inbound.add(question, { verdict: accept, ticket }, generation.current);
    assert.equal(inbound.get(question) !== undefined, isKept);
  }
  assert.deepEqual(left, [2]);
});

test('the caches are bounded', () => {
  const { outbound, inbound, generation, left } = caches();
  for (let target = 0; target < 5_000; target++) {
    outbound.add(dialled(target), hand([1], generation.current, false), 1);
    const accept = { kind: 'accept', address: { ip: '10.0.0.2', port: 1 }, labels: LABELS } as const;
    inbound.add(called(target), { verdict: accept, ticket: target }, generation.current);
  }
  assert.equal(outbound.deal(dialled(0)), undefined);
  assert.notEqual(outbound.deal(dialled(4_999)), undefined);
  assert.equal(left.length, 5_000 - 4_096);
});
