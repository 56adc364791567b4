/** Connections that ask and check each answer until told to stop: what an application sees while things happen to the mesh. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { HostPort } from '../../src/base/ip.ts';
import type { TestMesh } from './mesh.ts';
import { type Client, dial } from './mesh-traffic.ts';

/** Dialled at once. */
const BURST = 20;
/** From an answer to the next question: two cores carry the pods, the agents and this. */
const PAUSE_MS = 150;

export interface SteadyOptions {
  readonly from: string;
  /** A server that answers every byte twice. */
  readonly to: HostPort;
  readonly connections: number;
}

export class Steady {
  readonly failures: string[] = [];
  readonly #clients: readonly Client[];
  readonly #loops: Promise<void>;
  #rounds = 0;
  #isOver = false;

  private constructor(clients: readonly Client[]) {
    this.#clients = clients;
    this.#loops = Promise.all(clients.map((client, i) => this.#run(client, i))).then(() => undefined);
  }

  static async open(mesh: TestMesh, { from, to, connections }: SteadyOptions): Promise<Steady> {
    const clients: Client[] = [];
    for (let i = 0; i < connections; i += BURST) {
      clients.push(...(await Promise.all(Array.from({ length: BURST }, () => dial(mesh, from, to)))));
    }
    return new Steady(clients);
  }

  /** Resolves when, on average, every connection has asked and been answered twice more: whatever happened is behind them. */
  async settled(): Promise<void> {
    const goal = this.#rounds + 2 * this.#clients.length;
    while (this.#rounds < goal && this.failures.length === 0) await sleep(20);
    assert.deepEqual(this.failures, []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#loops;
    for (const client of this.#clients) client[Symbol.dispose]();
  }

  async #run(client: Client, number: number): Promise<void> {
    let expected = 0;
    try {
      for (let round = 0; !this.#isOver; round += 1) {
        const text = `${number}.${round};`;
        const all = await client.exchange(text);
        assert.equal(all.slice(expected), text + text);
        expected = all.length;
        this.#rounds += 1;
        await sleep(PAUSE_MS);
      }
    } catch (error) {
      this.failures.push(`connection ${number}: ${String(error)}`);
    }
  }
}
