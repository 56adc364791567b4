/** V8's profilers of one thread, called by the names of the inspector protocol. */
import { Session } from 'node:inspector/promises';

/** One call; of each purpose in a session of its own, so that none ends what another began. */
export interface Inspection {
  readonly purpose: 'cpu' | 'heap';
  /** `undefined` ends the session. */
  readonly method: string | undefined;
  readonly params?: object;
}

/** Makes one call in a thread; what it answers is as the protocol of V8 has it. */
export type Inspect = (inspection: Inspection) => Promise<unknown>;

/** Of the thread it is made in. */
export class ThreadInspector {
  readonly #sessions = new Map<Inspection['purpose'], Session>();

  async inspect({ purpose, method, params }: Inspection): Promise<unknown> {
    const session = this.#sessions.get(purpose) ?? new Session();
    if (method === undefined) {
      session.disconnect();
      this.#sessions.delete(purpose);
      return undefined;
    }
    if (!this.#sessions.has(purpose)) session.connect();
    this.#sessions.set(purpose, session);
    // The published types have one overload per method.
    const any = session as { post(method: string, params?: object): Promise<unknown> };
    return await any.post(method, params);
  }
}
