/** The record of one identity in the certificate manager, and what it says to operators. */
import { MeshError } from '../base/errors.ts';
import { isUsable } from '../model/rotation.ts';
import type { TlsMaterial } from '../model/verdict.ts';
import { rfc3339Seconds } from '../wire/x509-time.ts';
import { type IdentitySnapshot, snapshotOf } from './certificate-snapshot.ts';
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
  /** A handshake has asked for it. */
  isMissed: boolean;
  /** Wall time of the next attempt while resting. */
  dueMs?: number;
  /** Something newer is there than what the attempt under way may bring. */
  isOutdated: boolean;
  /** Resolves, never rejects, when the attempt that is queued or running has ended. */
  attempt: PromiseWithResolvers<void>;
  timer?: Disposable;
  abort?: AbortController;
  isForgotten: boolean;
}

/** One identity for whoever watches the agent. Times are RFC 3339. */
export interface IdentityStatus {
  readonly identity: string;
  /** `Initializing`, `Available` or `Unavailable: <error>`. */
  readonly state: string;
  /** Why the last attempt failed; a certificate that is held serves on. */
  readonly lastError?: string;
  readonly failures?: number;
  readonly nextTryAt?: string;
  readonly notAfter?: string;
}

export function newEntry(identity: string): Entry {
  const attempt = Promise.withResolvers<void>();
  return { identity, phase: 'resting', failures: 0, isMissed: false, isOutdated: false, attempt, isForgotten: false };
}

export function usableMaterial({ held }: Entry, nowMs: number): TlsMaterial | undefined {
  return held !== undefined && isUsable(held.validity, nowMs) ? held.material : undefined;
}

/** As `/config_dump` shows it. */
export function entrySnapshot(entry: Entry, nowMs: number): IdentitySnapshot {
  return snapshotOf(entry.identity, stateText(entry, nowMs), entry.held?.material);
}

export function entryStatus(entry: Entry, nowMs: number): IdentityStatus {
  const { identity, error, failures, phase, dueMs, held } = entry;
  return {
    identity,
    state: stateText(entry, nowMs),
    ...(error !== undefined && { lastError: `${error.code}: ${error.message}`, failures }),
    ...(phase === 'resting' && dueMs !== undefined ? { nextTryAt: rfc3339Seconds(dueMs) } : {}),
    ...(held !== undefined && { notAfter: rfc3339Seconds(held.validity.notAfterMs) }),
  };
}

function stateText(entry: Entry, nowMs: number): string {
  if (usableMaterial(entry, nowMs) !== undefined) return 'Available';
  if (entry.held === undefined && entry.error === undefined) return 'Initializing';
  return `Unavailable: ${unavailable(entry).message}`;
}

/** `identity error: …`, as ztunnel words it. */
export function unavailable({ identity, error, held }: Entry): MeshError {
  const why = error?.message ?? (held === undefined ? 'the CA has not answered yet' : 'the certificate has expired');
  return new MeshError('CV-CERT-UNAVAILABLE', `identity error: ${why}`, { identity }, { cause: error });
}

/** The second text is the reference's: operators search for it. */
export function failureText({ error, held }: Entry, nowMs: number, retryMs: number): string {
  const retry = `next retry at ${rfc3339Seconds(retryMs)}`;
  if (held === undefined || !isUsable(held.validity, nowMs)) {
    return `certificate request failed (${error?.message}); no valid certificate; ${retry}`;
  }
  const end = rfc3339Seconds(held.validity.notAfterMs);
  return `certificate renewal failed (${error?.message}); retaining existing valid certificate until ${end}; ${retry}`;
}
