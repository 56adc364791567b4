/** What must be undone however the bench ends: synchronous steps, last in first out, also on Ctrl-C and on a throw. */

export class Cleanup {
  readonly #steps: (() => void)[] = [];

  add(step: () => void): void {
    this.#steps.push(step);
  }

  /** Every step runs even if an earlier one failed; the failures are printed, the measured figures stay valid. */
  run(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        step();
      } catch (error) {
        process.stderr.write(`bench: clean-up step failed: ${String(error)}\n`);
      }
    }
  }

  /**
   * 128 + signal number, as a shell reports it. `on`, not `once`: Ctrl-C reaches the whole process group and npm passes it
   * on as well, and the second signal must not end us in the middle of the clean-up.
   */
  onSignals(): void {
    process.on('SIGINT', () => this.#exit(130));
    process.on('SIGTERM', () => this.#exit(143));
    process.on('SIGHUP', () => this.#exit(129));
  }

  #exit(code: number): void {
    this.run();
    process.exit(code);
  }
}
