/** The one error class of the agent. What an error means (fault, flag, status, next step) is its row in `reasons.ts`. */
import { type Fault, REASONS, type ReasonCode } from './reasons.ts';

export type ErrorFields = Readonly<Record<string, string | number | boolean>>;

/** The only error class the agent throws on purpose. Branch on `code`, never on `message` or `name`. */
export class MeshError extends Error {
  override readonly name = 'MeshError';
  readonly code: ReasonCode;
  readonly fields: ErrorFields;

  constructor(code: ReasonCode, message: string, fields: ErrorFields = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.fields = fields;
  }

  get fault(): Fault {
    return REASONS[this.code].fault;
  }
}

/** Wraps whatever was caught: a `MeshError` as it is, anything else as `code` with its message kept. */
export function toMeshError(caught: unknown, code: ReasonCode = 'CV-BUG'): MeshError {
  if (caught instanceof MeshError) return caught;
  return new MeshError(code, messageOf(caught), {}, { cause: caught });
}

/** A Node error with one of these codes, for example `ENOENT`. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && codes.includes(error.code);
}

export function messageOf(caught: unknown): string {
  return caught instanceof Error ? caught.message : String(caught);
}
