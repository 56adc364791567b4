/** DNS replies that we make ourselves. The names in them are octets of the question, so their spelling is the client's. */
import { ipBytes } from '../base/ip.ts';
import { type DnsHeader, type Edns, HEADER_BYTES } from './dns-query.ts';

export const RCODE = { noError: 0, formErr: 1, servFail: 2, notImp: 4 } as const;

/** Largest reply to a query without EDNS (RFC 1035 section 4.2.1), and the least an EDNS payload size means (RFC 6891). */
const PLAIN_UDP_BYTES = 512;
const MAX_MESSAGE_BYTES = 65_535;
const TYPE = { a: 1, cname: 5, aaaa: 28, opt: 41 } as const;
const CLASS_IN = 1;
const OPT_BYTES = 11;
/** Owner, type, class, TTL and length of a record whose owner is a pointer. */
const RECORD_BYTES = 12;
/** Points at offset 12: the name of the question. */
const ASKED_NAME = 0xc000 | HEADER_BYTES;

const QR = 0x8000;
const AA = 0x0400;
const TC = 0x0200;
const RD = 0x0100;
const RA = 0x0080;
const CD = 0x0010;

export interface DnsAnswer {
  /** The name that the asked one stands for, and that has the addresses. */
  readonly cname?: string | undefined;
  /** Canonical text, all of one family. */
  readonly addresses: readonly string[];
  readonly ttlSeconds: number;
}

export interface AnswerOptions {
  /** Of the query; the reply has an OPT record exactly when the query has one. */
  readonly edns: Edns | undefined;
  readonly transport: 'udp' | 'tcp';
}

/** Nothing but a status. `question` is absent when it could not be read. */
export function encodeStatus(query: DnsHeader, rcode: number, question: Uint8Array = new Uint8Array()): Uint8Array {
  const reply = new Uint8Array(HEADER_BYTES + question.length);
  writeHeader(reply, query, rcode, { questions: question.length === 0 ? 0 : 1, answers: 0, additionals: 0 });
  reply.set(question, HEADER_BYTES);
  return reply;
}

/** An authoritative answer. What does not fit is left out; over UDP the truncation bit then sends the client to TCP. */
export function encodeAnswer(
  query: DnsHeader,
  question: Uint8Array,
  { cname, addresses, ttlSeconds }: DnsAnswer,
  { edns, transport }: AnswerOptions,
): Uint8Array {
  const canonical = cname === undefined ? undefined : nameBytes(cname);
  const fixed = HEADER_BYTES + question.length + (canonical === undefined ? 0 : RECORD_BYTES + canonical.length);
  const limit = transport === 'tcp' ? MAX_MESSAGE_BYTES : payloadOf(edns);
  const room = limit - fixed - (edns === undefined ? 0 : OPT_BYTES);
  const data = addresses.flatMap((ip) => ipBytes(ip) ?? []);
  const recordBytes = RECORD_BYTES + (data[0]?.length ?? 0);
  const fitting = data.slice(0, Math.floor(room / recordBytes));

  const writer = new Writer(fixed + fitting.length * recordBytes + (edns === undefined ? 0 : OPT_BYTES));
  writeHeader(writer.bytes, query, RCODE.noError | AA | (isCut(data, fitting, transport) ? TC : 0), {
    questions: 1,
    answers: (canonical === undefined ? 0 : 1) + fitting.length,
    additionals: edns === undefined ? 0 : 1,
  });
  writer.skip(HEADER_BYTES).raw(question);
  const owner = canonical === undefined ? ASKED_NAME : 0xc000 | (writer.at + RECORD_BYTES);
  if (canonical !== undefined) writer.record({ owner: ASKED_NAME, type: TYPE.cname, ttlSeconds, data: canonical });
  for (const ip of fitting) {
    writer.record({ owner, type: ip.length === 4 ? TYPE.a : TYPE.aaaa, ttlSeconds, data: ip });
  }
  if (edns !== undefined) writer.opt(edns);
  return writer.bytes;
}

/** TCP has no second try: what does not fit into 64 KiB is left out without a word, a fair choice as the order is random. */
function isCut(all: readonly unknown[], fitting: readonly unknown[], transport: 'udp' | 'tcp'): boolean {
  return transport === 'udp' && fitting.length < all.length;
}

function payloadOf(edns: Edns | undefined): number {
  return Math.max(edns?.payloadBytes ?? 0, PLAIN_UDP_BYTES);
}

interface Counts {
  readonly questions: number;
  readonly answers: number;
  readonly additionals: number;
}

/** `status`: RCODE, AA and TC. */
function writeHeader(reply: Uint8Array, query: DnsHeader, status: number, counts: Counts): void {
  const view = new DataView(reply.buffer);
  const echoed = (query.opcode << 11) | (query.isRecursionDesired ? RD : 0) | (query.isCheckingDisabled ? CD : 0);
  view.setUint16(0, query.id);
  view.setUint16(2, QR | RA | echoed | status);
  view.setUint16(4, counts.questions);
  view.setUint16(6, counts.answers);
  view.setUint16(10, counts.additionals);
}

interface Record {
  /** A pointer. */
  readonly owner: number;
  readonly type: number;
  readonly ttlSeconds: number;
  readonly data: Uint8Array;
}

class Writer {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  at = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  skip(length: number): this {
    this.at += length;
    return this;
  }

  raw(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.at);
    return this.skip(bytes.length);
  }

  record({ owner, type, ttlSeconds, data }: Record): void {
    this.#view.setUint16(this.at, owner);
    this.#view.setUint16(this.at + 2, type);
    this.#view.setUint16(this.at + 4, CLASS_IN);
    this.#view.setUint32(this.at + 6, ttlSeconds);
    this.#view.setUint16(this.at + 10, data.length);
    this.skip(RECORD_BYTES).raw(data);
  }

  /** Root owner, our payload size, version and DO as asked, no options. */
  opt(edns: Edns): void {
    this.#view.setUint16(this.at + 1, TYPE.opt);
    this.#view.setUint16(this.at + 3, payloadOf(edns));
    this.#view.setUint8(this.at + 6, edns.version);
    this.#view.setUint16(this.at + 7, edns.isDnssecOk ? 0x8000 : 0);
    this.skip(OPT_BYTES);
  }
}

/** `text` is a name that was read as plain text, so its labels are ASCII and short enough. */
function nameBytes(text: string): Uint8Array {
  const labels = text.split('.').flatMap((label) => [label.length, ...Array.from(label, codeOf)]);
  return Uint8Array.from([...labels, 0]);
}

function codeOf(character: string): number {
  return character.charCodeAt(0);
}
