/** The record of one identity in the certificate manager, and what it says to operators. */
import { MeshError } from '../base/errors.ts';
import { isUsable } from '../model/rotation.ts';
import { rfc3339Seconds } from '../wire/x509-time.ts';
import type { Held } from './issued-certificate.ts';

/** What the manager knows about one identity. */
export interface Entry {
  readonly identity: string;
  /** queued → issuing → resting → queued … */
  phase: 'queued' | 'issuing' | 'resting';
  held?: Held;
  /** Why the last attempt failed; absent after a success. */
  error?: MeshError | undefined;
  failures: number;
  /** Resolves, never rejects, when the attempt that is queued or running has ended. */
  attempt: PromiseWithResolvers<void>;
  timer?: Disposable;
  abort?: AbortController;
  isForgotten: boolean;
}

/** `identity error: …`, as facts/operations.md §3.5 has it. */
export function unavailable({ identity, error, held }: Entry): MeshError {
  const why = error?.message ?? (held === undefined ? 'the CA has not answered yet' : 'the certificate has expired');
  return new MeshError('CV-CERT-UNAVAILABLE', `identity error: ${why}`, { identity }, { cause: error });
}

/** The second text is the reference's (facts/operations.md §3.6): operators search for it. */
export function failureText({ error, held }: Entry, nowMs: number, retryMs: number): string {
  const retry = `next retry at ${rfc3339Seconds(retryMs)}`;
  if (held === undefined || !isUsable(held.validity, nowMs)) {
    return `certificate request failed (${error?.message}); no valid certificate; ${retry}`;
  }
  const end = rfc3339Seconds(held.validity.notAfterMs);
  return `certificate renewal failed (${error?.message}); retaining existing valid certificate until ${end}; ${retry}`;
}
