/** A DNS message of a pod in, its reply out: ours from the mesh, all others from a nameserver. */
import { MeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { DnsQuestion, DnsVerdict, Refusal } from '../model/verdict.ts';
import type { DnsOutcome, DnsReport } from '../telemetry/dns-report.ts';
import { type DnsHeader, type DnsQuestionSection, readEdns, readHeader, readQuestion } from '../wire/dns-query.ts';
import { encodeAnswer, encodeStatus, RCODE } from '../wire/dns-reply.ts';
import { dnsTypeName } from '../wire/dns-types.ts';
import type { DnsForwarder } from './dns-forward.ts';
import type { PodContext } from './pod-context.ts';

/** Reference value. */
const TTL_SECONDS = 30;
const OPCODE_QUERY = 0;
const CLASS_IN = 1;
const TYPES: Readonly<Record<number, 'A' | 'AAAA'>> = { 1: 'A', 28: 'AAAA' };
/** IXFR and AXFR: answered by many messages, and meant for one server and not for any. */
const TRANSFERS: ReadonlySet<number> = new Set([251, 252]);

export type DnsTransport = 'udp' | 'tcp';

/** `undefined`: nothing must be said, because that could be answered again, for ever. */
export type SendReply = (reply: Uint8Array | undefined) => Promise<void>;

interface Asked {
  readonly message: Uint8Array;
  readonly header: DnsHeader;
  readonly transport: DnsTransport;
}

export class DnsHandler {
  readonly #context: PodContext;
  readonly #forwarder: DnsForwarder;
  readonly #maxQueries: number;
  #inProgress = 0;
  #idle = Promise.withResolvers<void>();

  constructor(context: PodContext, forwarder: DnsForwarder, maxQueries: number) {
    this.#context = context;
    this.#forwarder = forwarder;
    this.#maxQueries = maxQueries;
    this.#idle.resolve();
  }

  /** Resolves when no query is in progress. */
  get idle(): Promise<void> {
    return this.#idle.promise;
  }

  /** Calls `send` once, and never rejects. The query is in progress until `send` is done: the end of the proxy waits for it. */
  async serve(message: Uint8Array, transport: DnsTransport, send: SendReply): Promise<void> {
    if (this.#inProgress === 0) this.#idle = Promise.withResolvers<void>();
    this.#inProgress += 1;
    try {
      const reply = await this.#reply(message, transport);
      this.#context.share.enter();
      await send(reply);
    } catch (error) {
      this.#context.refusalFor(error);
    } finally {
      this.#inProgress -= 1;
      if (this.#inProgress === 0) this.#idle.resolve();
    }
  }

  async #reply(message: Uint8Array, transport: DnsTransport): Promise<Uint8Array | undefined> {
    this.#context.share.enter();
    const header = readHeader(message);
    if (header !== undefined && !(header.isResponse && transport === 'udp')) {
      return await this.#answer({ message, header, transport });
    }
    const error = new MeshError('CV-WIRE-MALFORMED', 'DNS message: no query');
    this.#report({ transport, outcome: { kind: 'refused', refusal: this.#context.refusalFor(error) } });
    return undefined;
  }

  async #answer(asked: Asked): Promise<Uint8Array> {
    const { message, header, transport } = asked;
    let question: DnsQuestionSection | undefined;
    try {
      requireQuery(header);
      question = readQuestion(message);
      this.#requireAnswerable(question);
      await this.#context.share.turn();
      const verdict = await this.#context.deps.verdicts.resolve(this.#questionOf(question));
      return await this.#carryOut(verdict, asked, question);
    } catch (error) {
      const refusal = this.#context.refusalFor(error);
      this.#report({ transport, question: summaryOf(question), outcome: { kind: 'refused', refusal } });
      return encodeStatus(header, rcodeFor(refusal.code), question?.bytes);
    }
  }

  #requireAnswerable({ type }: DnsQuestionSection): void {
    if (TRANSFERS.has(type)) throw new MeshError('CV-DNS-UNSUPPORTED', 'zone transfers are not forwarded');
    // New ones are refused and not the oldest: those would never be answered while more come than are answered.
    if (this.#inProgress <= this.#maxQueries) return;
    throw new MeshError('CV-LIMIT', `this pod already has ${this.#maxQueries} DNS queries in progress`);
  }

  #questionOf({ name, type, class: klass }: DnsQuestionSection): DnsQuestion {
    const podUid = this.#context.pod.uid;
    const known = klass === CLASS_IN && name !== undefined ? TYPES[type] : undefined;
    return { podUid, name: name ?? '', type: known ?? 'other' };
  }

  async #carryOut(verdict: DnsVerdict, asked: Asked, question: DnsQuestionSection): Promise<Uint8Array> {
    const { message, header, transport } = asked;
    switch (verdict.kind) {
      case 'refuse':
        throw new MeshError(verdict.refusal.code, verdict.refusal.text);
      case 'forward': {
        const { reply, outcome } = await this.#forward(asked, question);
        this.#report({ transport, question: summaryOf(question), client: verdict.client, outcome });
        return reply;
      }
      case 'answer': {
        const { client, result, addresses } = verdict;
        const options = { edns: readEdns(message), transport };
        const reply = encodeAnswer(header, question.bytes, { ...verdict, ttlSeconds: TTL_SECONDS }, options);
        const outcome = { kind: 'local', result, addresses: addresses.length } as const;
        this.#report({ transport, question: summaryOf(question), client, outcome });
        return reply;
      }
    }
  }

  async #forward(
    { message, header, transport }: Asked,
    question: DnsQuestionSection,
  ): Promise<{ readonly reply: Uint8Array; readonly outcome: DnsOutcome }> {
    const { clock } = this.#context.deps;
    const startedMs = clock.monotonicMs();
    try {
      const reply = await this.#forwarder.ask(message, transport);
      const durationMs = clock.monotonicMs() - startedMs;
      const { rcode = 0, answers = 0, isTruncated = false } = readHeader(reply) ?? {};
      const isNegative = rcode !== RCODE.noError || (answers === 0 && !isTruncated);
      return { reply, outcome: { kind: 'forwarded', isNegative, answers, durationMs } };
    } catch (error) {
      const refusal: Refusal = this.#context.refusalFor(error);
      const reply = encodeStatus(header, RCODE.servFail, question.bytes);
      return { reply, outcome: { kind: 'failed', refusal, durationMs: clock.monotonicMs() - startedMs } };
    }
  }

  #report(report: DnsReport): void {
    this.#context.deps.dns.answered(report);
  }
}

function requireQuery({ isResponse, opcode }: DnsHeader): void {
  if (isResponse) throw new MeshError('CV-WIRE-MALFORMED', 'DNS message: a response where a query belongs');
  if (opcode !== OPCODE_QUERY) throw new MeshError('CV-DNS-UNSUPPORTED', `DNS opcode ${opcode} is not forwarded`);
}

function summaryOf(question: DnsQuestionSection | undefined): DnsReport['question'] {
  return question && { name: question.name, type: dnsTypeName(question.type) };
}

function rcodeFor(code: ReasonCode): number {
  if (code === 'CV-WIRE-MALFORMED') return RCODE.formErr;
  return code === 'CV-DNS-UNSUPPORTED' ? RCODE.notImp : RCODE.servFail;
}
