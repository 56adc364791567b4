/** One request for a certificate: a new key, the question to the provider with its deadline, and the check of the answer. */
import { type Clock, deadline } from '../base/clock.ts';
import { MeshError } from '../base/errors.ts';
import { type Entry, unavailable } from './certificate-entry.ts';
import type { CertificateProvider, IssuedCertificate } from './certificate-provider.ts';
import { createCsr } from './csr.ts';
import { adoptIssued, type Held } from './issued-certificate.ts';
import { generateKeyPair } from './keys.ts';

const ATTEMPT_TIMEOUT_MS = 10_000;

export interface AttemptDeps {
  readonly provider: CertificateProvider;
  readonly clock: Clock;
  /** Lifetime to ask for. */
  readonly ttlMs: number;
}

/** Rejects with what the provider says, or `CV-CA-UNREACHABLE` after 10 s even when it ignores its signal. `entry.abort` ends it early. */
export async function issueOnce(entry: Entry, deps: AttemptDeps): Promise<Held> {
  const keys = await generateKeyPair();
  if (entry.isForgotten) throw unavailable(entry);
  const issued = await ask(entry, deps, createCsr(entry.identity, keys));
  return adoptIssued(entry.identity, issued, keys.privateKey, deps.clock.wallMs());
}

async function ask(entry: Entry, { provider, clock, ttlMs }: AttemptDeps, csrPem: string): Promise<IssuedCertificate> {
  const abort = new AbortController();
  entry.abort = abort;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => undefined);
  abort.signal.addEventListener('abort', () => reject(abort.signal.reason));
  using _deadline = deadline(clock, ATTEMPT_TIMEOUT_MS, () => {
    abort.abort(new MeshError('CV-CA-UNREACHABLE', `${provider.title} did not answer in ${ATTEMPT_TIMEOUT_MS} ms`));
  });
  // `await` keeps the deadline armed until the answer is there.
  return await Promise.race([provider.issue(entry.identity, csrPem, ttlMs, abort.signal), aborted]);
}
