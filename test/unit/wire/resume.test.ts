import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import type { HeaderValues } from '../../../src/wire/h2-head.ts';
import {
  answerFields,
  newResumeToken,
  RESUME_OFFER,
  readOfferAnswer,
  readResumeAnswer,
  readResumeRequest,
  readSuspended,
  resumeFields,
  suspendedTrailers,
} from '../../../src/wire/resume.ts';

const TOKEN = '0123456789abcdef0123456789abcdef';
const token = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex'));

function received(fields: Readonly<Record<string, string>>): HeaderValues {
  return new Map(Object.entries(fields).map(([name, value]) => [name, [value]]));
}

function values(name: string, ...all: string[]): HeaderValues {
  return new Map([[name, all]]);
}

test('what one agent writes the other reads', () => {
  fc.assert(
    fc.property(token, fc.nat(10 ** 14), (text, bytes) => {
      assert.deepEqual(readResumeRequest(received(resumeFields(text))), { kind: 'resume', token: text });
      assert.equal(readOfferAnswer(received(answerFields(text, { isResumed: false }))), text);
      assert.equal(readResumeAnswer(received(answerFields(text, { isResumed: true }))), text);
      assert.equal(readSuspended(received(suspendedTrailers(bytes))), bytes);
    }),
  );
  assert.deepEqual(readResumeRequest(received(RESUME_OFFER)), { kind: 'offer' });
});

test('a token is 128 bits', () => {
  assert.equal(newResumeToken({ hex: (bytes) => 'a'.repeat(2 * bytes) }).length, 32);
});

test('the answer to a new stream is not taken for one that resumes, nor the other way round', () => {
  assert.equal(readResumeAnswer(received(answerFields(TOKEN, { isResumed: false }))), undefined);
  assert.equal(readOfferAnswer(received(answerFields(TOKEN, { isResumed: true }))), undefined);
});

test('a peer that does not know us is one that does not resume', () => {
  assert.deepEqual(readResumeRequest(new Map()), { kind: 'none' });
  assert.equal(readOfferAnswer(new Map()), undefined);
  assert.equal(readResumeAnswer(new Map()), undefined);
  assert.equal(readSuspended(undefined), undefined);
  assert.equal(readSuspended(new Map()), undefined);
});

test('the offer of a version to come is left alone', () => {
  assert.deepEqual(readResumeRequest(values('culvert-resume', '2')), { kind: 'none' });
});

for (const [name, headers] of [
  ['a token too short', values('culvert-resume', '1;token=0123')],
  ['a token in upper case', values('culvert-resume', `1;token=${TOKEN.toUpperCase()}`)],
  ['a token of a version to come', values('culvert-resume', `2;token=${TOKEN}`)],
  ['two tokens', values('culvert-resume', `1;token=${TOKEN}`, `1;token=${TOKEN}`)],
  ['an offer and a token', values('culvert-resume', '1', `1;token=${TOKEN}`)],
] as const) {
  test(`a CONNECT with ${name} is never taken for a new stream`, () => {
    assert.throws(() => readResumeRequest(headers), isMalformed);
  });
}

test('any text at all is a request, or malformed', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 60 }), { minLength: 1, maxLength: 3 }), (all) => {
      try {
        readResumeRequest(values('culvert-resume', ...all));
        readSuspended(values('culvert-suspended', ...all));
      } catch (error) {
        assert.ok(isMalformed(error));
      }
    }),
  );
});

function isMalformed(error: unknown): boolean {
  return error instanceof MeshError && error.code === 'CV-WIRE-MALFORMED';
}
