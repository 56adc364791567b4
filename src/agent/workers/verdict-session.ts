/** The main thread's end of one worker's verdict port: asks the authority, and remembers what the worker holds of it. */
import { SlotMap } from '../../base/slot-map.ts';
import type { TrackedConnection } from '../../model/inbound-verdict.ts';
import type { InboundQuestion, VerdictPush } from '../../model/verdict.ts';
import type { VerdictAuthority } from '../verdicts/verdict-authority.ts';
import type { Dated, InboundReply, MainCalls, WorkerReport } from './protocol.ts';

/** A worker holds fewer: it gives tickets back as others take their place. */
const MAX_TICKETS = 16_384;

interface Ticket {
  readonly tracked: TrackedConnection;
  readonly generation: number;
}

export class VerdictSession implements Disposable {
  readonly calls: Pick<MainCalls, 'outbound' | 'resolve' | 'inbound' | 'identityOf' | 'certificate'>;
  readonly #authority: VerdictAuthority;
  readonly #push: (push: VerdictPush) => void;
  readonly #tickets = new SlotMap<number, Ticket>();
  /** Connections of this worker that the authority remembers. */
  readonly #tracked = new SlotMap<string, TrackedConnection>();
  #pushes: Disposable | undefined;
  #lastTicket = 0;
  #isOver = false;

  constructor(authority: VerdictAuthority, push: (push: VerdictPush) => void) {
    this.#authority = authority;
    this.#push = push;
    this.calls = {
      outbound: ({ question, count }) => authority.drawOutbound(question, count),
      resolve: ({ question, count }) => authority.drawResolution(question, count),
      inbound: (question) => this.#judge(question),
      identityOf: async (podUid) => this.#dated(authority.generation, () => authority.identityOf(podUid)),
      certificate: async (identity) =>
        this.#dated(authority.certificateGeneration, () => authority.certificate(identity)),
    };
  }

  /** Passes pushes on from now on, and first what the worker must know to begin. */
  open(): void {
    this.#pushes = this.#authority.subscribe(this.#push);
  }

  /** In this order: a connection may have begun and ended, and a ticket been used for the last time, since the last report. */
  add({ ticketUses, released, ticketsLeft }: Pick<WorkerReport, 'ticketUses' | 'released' | 'ticketsLeft'>): void {
    for (const [connectionId, number, port] of ticketUses) {
      const ticket = this.#tickets.get(number);
      if (ticket === undefined) {
        // A defect; nobody would close it when policies change.
        const refusal = { code: 'CV-BUG', text: `connection allowed by an unknown verdict: ${number}` } as const;
        this.#push({ kind: 'revoke', connectionIds: [connectionId], refusal });
        continue;
      }
      const { tracked, generation } = ticket;
      const ours = { ...tracked, source: { ...tracked.source, port } };
      this.#tracked.set(connectionId, ours);
      this.#authority.track(connectionId, ours, generation);
    }
    for (const connectionId of released) this.#release(connectionId);
    for (const ticket of ticketsLeft) this.#tickets.delete(ticket);
  }

  /** The worker is gone, and its connections with it. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#pushes?.[Symbol.dispose]();
    for (const connectionId of [...this.#tracked.keys()]) this.#release(connectionId);
    this.#tickets.clear();
  }

  async #judge(question: InboundQuestion): Promise<InboundReply> {
    const { verdict, tracked, generation, isRepeatable } = await this.#authority.judgeInbound(question);
    if (verdict.kind === 'refuse' || tracked === undefined) return { verdict, generation };
    this.#tracked.set(question.connectionId, tracked);
    // The worker went while the verdict waited for a record of the pod.
    if (this.#isOver) this.#release(question.connectionId);
    if (!isRepeatable || this.#tickets.size >= MAX_TICKETS) return { verdict, generation };
    const ticket = ++this.#lastTicket;
    this.#tickets.set(ticket, { tracked, generation });
    return { verdict, generation, ticket };
  }

  #release(connectionId: string): void {
    const tracked = this.#tracked.get(connectionId);
    this.#tracked.delete(connectionId);
    if (tracked !== undefined) this.#authority.release(connectionId, tracked);
  }

  /** The generation of before: an answer made meanwhile may only look older than it is. */
  async #dated<Value>(generation: { readonly current: number }, ask: () => Promise<Value>): Promise<Dated<Value>> {
    const { current } = generation;
    return { value: await ask(), generation: current };
  }
}
