/** What a worker owes the main thread about inbound connections: which use a ticket, which ended. Taken with each report. */
import type { TicketUse, WorkerReport } from './protocol.ts';

export class TicketLedger {
  readonly #onNews: () => void;
  /** Bounded by the open connections: one that ends untold is forgotten. */
  readonly #uses = new Map<string, TicketUse>();
  /** Bounded by the connections that the main thread knows. */
  #released: string[] = [];
  /** Bounded by the tickets that the main thread gave out. */
  #ticketsLeft: number[] = [];

  constructor(onNews: () => void) {
    this.#onNews = onNews;
  }

  use(connectionId: string, ticket: number, clientPort: number): void {
    this.#uses.set(connectionId, [connectionId, ticket, clientPort]);
    this.#onNews();
  }

  release(connectionId: string): void {
    if (this.#uses.delete(connectionId)) return;
    this.#released.push(connectionId);
    this.#onNews();
  }

  /** No use of `ticket` follows. */
  leave(ticket: number): void {
    this.#ticketsLeft.push(ticket);
    this.#onNews();
  }

  take(): Pick<WorkerReport, 'ticketUses' | 'released' | 'ticketsLeft'> {
    const owed = {
      ticketUses: [...this.#uses.values()],
      released: this.#released,
      ticketsLeft: this.#ticketsLeft,
    };
    this.#uses.clear();
    this.#released = [];
    this.#ticketsLeft = [];
    return owed;
  }
}
