/**
 * What a CONNECT says about itself, as far as a verdict needs it. HPACK makes a list of 64 KiB out of some twenty octets, and a
 * question is copied to another thread: nothing goes with it that nobody would read.
 */
import { MAX_BAGGAGE_CHARS } from '../wire/baggage.ts';
import { MAX_FORWARDED_CHARS } from '../wire/forwarded.ts';
import type { RequestHead } from '../wire/h2-head.ts';
import type { HboneQuestion } from './inheritance.ts';

/** What is kept of a peer's text while a refusal is remembered: a valid authority has at most 259 characters. */
const MAX_TEXT_CHARS = 300;
/** Of a question that another process may have to ask again; those of agents have less than one KiB. */
const MAX_PORTABLE_CHARS = 8 * 1024;

/** A copy when it cuts: a slice would keep all of the text alive. */
export function short(text: string): string {
  return text.length <= MAX_TEXT_CHARS ? text : Buffer.from(text.slice(0, MAX_TEXT_CHARS)).toString();
}

/** Who is known by a certificate can come back as the same; and what it said must fit into a packet of the hand-over. */
export function isPortable(question: HboneQuestion): boolean {
  return question.peerIdentity !== undefined && JSON.stringify(question).length <= MAX_PORTABLE_CHARS;
}

/** `authority` is that of the request, short. */
export function hboneQuestion({ headers }: RequestHead, authority: string, peerIdentity?: string): HboneQuestion {
  const forwarded = headers.get('forwarded')?.[0];
  const baggage = headers.get('baggage');
  const forwardedNetwork = headers.get('x-forwarded-network')?.[0];
  return {
    authority,
    ...(peerIdentity !== undefined && { peerIdentity }),
    ...(forwarded !== undefined && forwarded.length <= MAX_FORWARDED_CHARS && { forwarded }),
    ...(baggage !== undefined && charsOf(baggage) <= MAX_BAGGAGE_CHARS && { baggage }),
    ...(forwardedNetwork !== undefined && { forwardedNetwork: short(forwardedNetwork) }),
  };
}

function charsOf(lines: readonly string[]): number {
  return lines.reduce((sum, line) => sum + line.length, 0);
}
