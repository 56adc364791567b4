/** Faults in the threads of agents, on demand. What there is, and how a thread comes to it: `fault-preload.ts`. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault-preload.ts';

const PRELOAD = new URL('./fault-preload.ts', import.meta.url).href;

export class Faults implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'culvert-faults-'));

  /** Of the agent whose threads can be given some. */
  get env(): Readonly<Record<string, string>> {
    return { NODE_OPTIONS: `--import=${PRELOAD}`, FAULTS: this.#folder };
  }

  /** Resolves when `thread` has it; disposing ends one that can end. */
  async inject(fault: Fault, thread: string): Promise<Disposable> {
    const file = join(this.#folder, `${fault}-${thread}`);
    const begun = `${file}.begun`;
    rmSync(begun, { force: true });
    writeFileSync(file, '');
    while (!existsSync(begun)) await sleep(10);
    return { [Symbol.dispose]: () => rmSync(begun, { force: true }) };
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
