/** How much of the machine others used during the run: a figure taken next to a busy neighbour is worth little. */
import { availableParallelism } from 'node:os';
import { cpuSeconds, machineCpuSeconds } from './proc.ts';

/** Everything the bench starts is its child, so what is left over was somebody else, or the hypervisor's. */
export class Noise {
  readonly #startedMs = performance.now();
  readonly #machine = machineCpuSeconds();
  readonly #own = cpuSeconds([process.pid]);

  /** 0 to 1: the share of all cores that went to processes outside the bench. */
  othersShare(): number {
    const wall = ((performance.now() - this.#startedMs) / 1000) * availableParallelism();
    const others = machineCpuSeconds() - this.#machine - (cpuSeconds([process.pid]) - this.#own);
    return Math.max(0, others / wall);
  }
}
