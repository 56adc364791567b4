/**
 * Fields of our own on a CONNECT and on its end, by which two Culvert agents move a stream from one tunnel to another
 * (`agent/hand-over/README.md`). Peers that do not know them ignore them, and are never sent the trailers.
 */
import { MeshError } from '../base/errors.ts';
import type { HeaderValues } from './h2-head.ts';

const FIELD = 'culvert-resume';
const SUSPENDED_FIELD = 'culvert-suspended';
const VERSION = '1';
/** 128 bits. */
const TOKEN_BYTES = 16;
const WITH_TOKEN = /^1;token=([0-9a-f]{32})$/;
const RESUMED = /^1;token=([0-9a-f]{32});resumed$/;
/** 2^53 has 16 digits. */
const BYTE_COUNT = /^(?:0|[1-9]\d{0,14})$/;

type Fields = Readonly<Record<string, string>>;

/** What a CONNECT asks for: a new stream that may be resumed later, one that was suspended, or nothing of ours. */
export type ResumeRequest = { readonly kind: 'none' | 'offer' } | { readonly kind: 'resume'; readonly token: string };

export function newResumeToken(random: { hex(bytes: number): string }): string {
  return random.hex(TOKEN_BYTES);
}

/** Of a CONNECT for a new stream. */
export const RESUME_OFFER: Fields = { [FIELD]: VERSION };

/** Of a CONNECT that goes on with the stream `token` was given for. */
export function resumeFields(token: string): Fields {
  return { [FIELD]: `${VERSION};token=${token}` };
}

/** Of the 200 that answers either; `token` is good for the next time. */
export function answerFields(token: string, { isResumed }: { readonly isResumed: boolean }): Fields {
  return { [FIELD]: `${VERSION};token=${token}${isResumed ? ';resumed' : ''}` };
}

/** Of the 404 of a server where such a stream is not, and never will be. */
export const GONE_ANSWER: Fields = { [FIELD]: `${VERSION};gone` };

export function isGoneAnswer(headers: HeaderValues): boolean {
  return headers.get(FIELD)?.[0] === GONE_ANSWER[FIELD];
}

/** Throws `CV-WIRE-MALFORMED` for what may be meant to resume: taken for a new stream, it would begin in the middle. */
export function readResumeRequest(headers: HeaderValues): ResumeRequest {
  const values = headers.get(FIELD);
  if (values === undefined) return { kind: 'none' };
  const [value = '', ...more] = values;
  const token = WITH_TOKEN.exec(value)?.[1];
  if (token !== undefined && more.length === 0) return { kind: 'resume', token };
  if (values.some((text) => text.includes(';'))) throw malformed(FIELD);
  return { kind: more.length === 0 && value === VERSION ? 'offer' : 'none' };
}

/** The token of a stream that has just begun; `undefined`: the peer does not resume. */
export function readOfferAnswer(headers: HeaderValues): string | undefined {
  return onlyMatch(headers, WITH_TOKEN);
}

/** The next token of a stream that goes on; `undefined`: whoever answered has begun something else. */
export function readResumeAnswer(headers: HeaderValues): string | undefined {
  return onlyMatch(headers, RESUMED);
}

/** Trailers of a half that stops here and goes on elsewhere, after `sentBytes` in this stream. */
export function suspendedTrailers(sentBytes: number): Fields {
  return { [SUSPENDED_FIELD]: String(sentBytes) };
}

/** How much the peer says it has sent; `undefined`: an ordinary end. Throws `CV-WIRE-MALFORMED`. */
export function readSuspended(trailers: HeaderValues | undefined): number | undefined {
  const values = trailers?.get(SUSPENDED_FIELD);
  if (values === undefined) return undefined;
  const [value = '', ...more] = values;
  if (more.length > 0 || !BYTE_COUNT.test(value)) throw malformed(SUSPENDED_FIELD);
  return Number(value);
}

function onlyMatch(headers: HeaderValues, pattern: RegExp): string | undefined {
  const [value = '', ...more] = headers.get(FIELD) ?? [];
  return more.length > 0 ? undefined : pattern.exec(value)?.[1];
}

function malformed(field: string): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `${field} is not as we write it`);
}
