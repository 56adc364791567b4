/**
 * DNS messages as strangers send them (RFC 1035, RFC 6891), read only as far as a decision needs. What is not read is
 * passed on as it came, so nothing behind the question can spoil a query that is not ours.
 */
import { decode, encode } from 'dns-packet';
import { MeshError, messageOf } from '../base/errors.ts';

export const HEADER_BYTES = 12;
/** Longest question: a name of 255 octets, type and class. */
const MAX_QUESTION_BYTES = 255 + 4;
/** Records behind the question of a query: OPT, TSIG, SIG(0). More is no query of a resolver. */
const MAX_RECORDS = 8;
const OPT = 'OPT';
/** What a name of the mesh can consist of; other octets have no text that could not mean another name too. */
const PRINTABLE = /^[!-~]*$/;

export interface DnsHeader {
  readonly id: number;
  readonly isResponse: boolean;
  readonly opcode: number;
  readonly isTruncated: boolean;
  readonly isRecursionDesired: boolean;
  readonly isCheckingDisabled: boolean;
  readonly rcode: number;
  readonly questions: number;
  readonly answers: number;
  /** Authority and additional section. */
  readonly others: number;
}

export interface DnsQuestionSection {
  /** Name, type and class, octet for octet. */
  readonly bytes: Uint8Array;
  /** As spelt in the message, without the final dot. `undefined`: the octets are no plain text, so no service has them. */
  readonly name: string | undefined;
  readonly type: number;
  readonly class: number;
}

export interface Edns {
  /** What the sender takes over UDP, octets. */
  readonly payloadBytes: number;
  readonly version: number;
  /** DO, RFC 3225. */
  readonly isDnssecOk: boolean;
}

/** `undefined`: too short to be DNS at all. */
export function readHeader(message: Uint8Array): DnsHeader | undefined {
  if (message.length < HEADER_BYTES) return undefined;
  const view = viewOf(message);
  const flags = view.getUint16(2);
  return {
    id: view.getUint16(0),
    isResponse: (flags & 0x8000) !== 0,
    opcode: (flags >> 11) & 0xf,
    isTruncated: (flags & 0x0200) !== 0,
    isRecursionDesired: (flags & 0x0100) !== 0,
    isCheckingDisabled: (flags & 0x0010) !== 0,
    rcode: flags & 0xf,
    questions: view.getUint16(4),
    answers: view.getUint16(6),
    others: view.getUint16(8) + view.getUint16(10),
  };
}

/** The one question of a message that has a header. Throws `CV-WIRE-MALFORMED`. */
export function readQuestion(message: Uint8Array): DnsQuestionSection {
  // RFC 9619: any other number is a format error.
  if (viewOf(message).getUint16(4) !== 1) throw malformed('a query has exactly one question');
  const head = Buffer.from(message.subarray(0, HEADER_BYTES + MAX_QUESTION_BYTES));
  head.fill(0, 6, HEADER_BYTES);
  const [question] = tryDecode(head).questions ?? [];
  if (question === undefined) throw malformed('no question');
  const bytes = message.subarray(HEADER_BYTES, decode.bytes);
  const tail = viewOf(bytes);
  return {
    bytes,
    name: isExact(question.name, bytes) ? question.name.replace(/\.$/, '') : undefined,
    type: tail.getUint16(bytes.length - 4),
    class: tail.getUint16(bytes.length - 2),
  };
}

/** The OPT record of a query, if it has one. Throws `CV-WIRE-MALFORMED`. */
export function readEdns(message: Uint8Array): Edns | undefined {
  const header = readHeader(message);
  if (header === undefined) throw malformed('no header');
  if (header.answers + header.others === 0) return undefined;
  if (header.answers + header.others > MAX_RECORDS) throw malformed(`a query with more than ${MAX_RECORDS} records`);
  const found = (tryDecode(Buffer.from(message)).additionals ?? []).filter(({ type }) => type === OPT);
  const [opt] = found;
  if (found.length > 1) throw malformed('more than one OPT record');
  if (opt?.type !== OPT) return undefined;
  return { payloadBytes: opt.udpPayloadSize, version: opt.ednsVersion, isDnssecOk: (opt.flags & 0x8000) !== 0 };
}

/** Whether `reply` belongs to `query`: same id, and the same question unless the reply is an error without one. */
export function isReplyTo(query: Uint8Array, reply: Uint8Array): boolean {
  const header = readHeader(reply);
  if (header?.isResponse !== true || header.id !== readHeader(query)?.id) return false;
  if (header.questions === 0) return header.rcode !== 0;
  try {
    return sameIgnoringCase(readQuestion(query).bytes, readQuestion(reply).bytes);
  } catch {
    return false;
  }
}

/** Servers may change the case of letters; in other octets the bit of the case only makes more answers look alike. */
function sameIgnoringCase(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => (octet | 0x20) === ((b[i] ?? 0) | 0x20));
}

/** Whether writing `name` gives the octets it was read from: a label may hold dots, and a pointer may stand for labels. */
function isExact(name: string, question: Uint8Array): boolean {
  if (!PRINTABLE.test(name)) return false;
  const written = encode({ type: 'query', questions: [{ name, type: 'A' }] }).subarray(HEADER_BYTES, -4);
  return written.equals(question.subarray(0, -4));
}

function tryDecode(message: Buffer): ReturnType<typeof decode> {
  try {
    return decode(message);
  } catch (error) {
    throw malformed(messageOf(error), error);
  }
}

function malformed(problem: string, cause?: unknown): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `DNS message: ${problem}`, {}, { cause });
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
