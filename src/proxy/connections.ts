/** The open connections of one pod, and those on their way to it. */
import { setImmediate } from 'node:timers';
import type { MeshError } from '../base/errors.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { IdleSweep } from '../tunnel/relay.ts';
import { Connection, type ConnectionParts } from './connection.ts';
import type { ShortCutEnd } from './departure.ts';

export class Connections {
  readonly #open = new SlotMap<string, Connection>();
  /** Accepted and not open yet, because something about them is waited for: how to give each up. */
  readonly #arriving = new SlotMap<number, (error: MeshError) => void>();
  #arrivals = 0;
  #idle: PromiseWithResolvers<void> | undefined;
  /** Why all were closed: what arrives from then on ends at once. */
  #ended: MeshError | undefined;

  get size(): number {
    return this.#open.size;
  }

  /** Open ones and those on their way to it: what limits count. */
  get held(): number {
    return this.#open.size + this.#arriving.size;
  }

  /** Settles as `work` does, or rejects as soon as all connections are closed. `work` itself is not stopped. */
  async arrive<T>(work: Promise<T>): Promise<T> {
    const { promise: ended, reject } = Promise.withResolvers<never>();
    if (this.#ended !== undefined) reject(this.#ended);
    const arrival = ++this.#arrivals;
    this.#arriving.set(arrival, reject);
    try {
      return await Promise.race([ended, work]);
    } finally {
      this.#arriving.delete(arrival);
      // Later, because what has arrived is opened by the end of this turn.
      if (this.#idle !== undefined) setImmediate(() => this.#tellEmpty());
    }
  }

  /** For whoever is about to begin something new. */
  throwIfEnded(): void {
    if (this.#ended !== undefined) throw this.#ended;
  }

  open(parts: ConnectionParts): Connection {
    const connection = new Connection(this, parts);
    this.#open.set(connection.id, connection);
    if (this.#ended !== undefined) connection.close(this.#ended);
    return connection;
  }

  all(): IteratorObject<Connection> {
    return this.#open.values();
  }

  get(id: string): Connection | undefined {
    return this.#open.get(id);
  }

  /** Ends every connection, those on their way and later ones too. */
  closeAll(error: MeshError): void {
    this.#ended ??= error;
    for (const giveUp of [...this.#arriving.values()]) giveUp(error);
    for (const connection of [...this.#open.values()]) connection.close(error);
  }

  /** Those that another process or thread could go on with; of short cuts, those whose end here is `shortCuts`. */
  movable(shortCuts: ShortCutEnd | undefined): IteratorObject<Connection> {
    return this.#open.values().filter((connection) => connection.isMovable(shortCuts));
  }

  /** Somebody waits for a verdict or for an upstream. */
  get isBusy(): boolean {
    return this.#arriving.size > 0 || this.#open.values().some(({ relay }) => relay === undefined);
  }

  /** A suspended stream looks for its next tunnel. */
  get isSeeking(): boolean {
    return this.#open.values().some(({ tunnel }) => tunnel?.isAsking === true);
  }

  /** Resolves when none is open or on its way. */
  async empty(): Promise<void> {
    if (this.held === 0) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  /** Closes, for `error`, connections on which nothing moved since the previous sweep of their kind; the first finds none. */
  closeIdle(kind: IdleSweep, error: MeshError): void {
    for (const connection of [...this.#open.values()]) {
      if (connection.takeIdle(kind)) connection.close(error);
    }
  }

  /** @internal Connection only. */
  forget(connection: Connection): void {
    this.#open.delete(connection.id);
    this.#tellEmpty();
  }

  #tellEmpty(): void {
    if (this.held > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }
}
