/** What the demo claims, whether it was observed, and what was seen. Printed as it happens, or as JSON at the end. */

interface Claim {
  readonly text: string;
  readonly isObserved: boolean;
  /** Lines that let the reader judge. */
  readonly evidence: readonly string[];
}

export interface Step {
  readonly id: string;
  readonly title: string;
  readonly claims: Claim[];
}

/** Where the story goes: a terminal, a pipe, or nowhere until the end. */
export interface Screen {
  line(text: string): void;
  readonly hasColour: boolean;
}

const COLOURS = { green: 32, red: 31, dim: 2, bold: 1 } as const;

export class Report {
  readonly steps: Step[] = [];
  readonly #screen: Screen;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  get isGood(): boolean {
    const claims = this.steps.flatMap((step) => step.claims);
    return claims.length > 0 && claims.every((claim) => claim.isObserved);
  }

  get counts(): { readonly observed: number; readonly all: number } {
    const claims = this.steps.flatMap((step) => step.claims);
    return { observed: claims.filter((claim) => claim.isObserved).length, all: claims.length };
  }

  step(id: string, title: string): void {
    this.steps.push({ id, title, claims: [] });
    this.#screen.line('');
    this.#screen.line(this.#paint('bold', `(${id}) ${title}`));
  }

  claim(text: string, isObserved: boolean, evidence: readonly string[] = []): void {
    this.steps.at(-1)?.claims.push({ text, isObserved, evidence });
    const mark = isObserved ? this.#paint('green', '✔') : this.#paint('red', '✘');
    this.#screen.line(`  ${mark} ${text}`);
    for (const line of evidence) this.#screen.line(this.#paint('dim', `      ${line}`));
  }

  heading(text: string): void {
    this.#screen.line('');
    this.#screen.line(this.#paint('bold', text));
  }

  lines(lines: readonly string[]): void {
    for (const line of lines) this.#screen.line(line === '' ? '' : `  ${line}`);
  }

  #paint(colour: keyof typeof COLOURS, text: string): string {
    return this.#screen.hasColour ? `\x1b[${COLOURS[colour]}m${text}\x1b[0m` : text;
  }
}
