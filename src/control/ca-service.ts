/** `IstioCertificateService`: signs for whoever proves an identity, and for node agents in the name of their pods. */
import type { KeyObject } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { IssuedCertificate } from '../identity/certificate-provider.ts';
import { type CertificateRequest, parseCsr } from '../identity/csr.ts';
import { type CallContext, type RpcService, rpcService } from '../rpc/service.ts';
import { rpcRefusal } from '../rpc/status.ts';
import {
  type IstioCertificateRequest,
  IstioCertificateResponseSchema,
  IstioCertificateService,
} from '../wire/pb/citadel_pb.ts';
import type { Authenticator, Caller } from './caller.ts';
import type { NodeAuthorizer } from './node-authorization.ts';
import { RefusalLog, type RefusalLogDeps } from './refusal-log.ts';

const DEFAULT_TTL_MS = 24 * 3_600_000;
const MAX_TTL_MS = 90 * DEFAULT_TTL_MS;
const IMPERSONATED = 'ImpersonatedIdentity';
/** Longest identity that a log line has, characters. */
const MAX_SHOWN = 300;

/** What signs: the embedded CA. Throws `CV-CA` when it cannot. */
export interface LeafSigner {
  sign(order: {
    readonly identity: string;
    readonly publicKey: KeyObject;
    readonly commonName?: string | undefined;
    readonly ttlMs: number;
  }): IssuedCertificate;
}

/** `denied`: a known caller asked for what it may not have. `invalid`: the request itself. `failed`: the CA. */
export type CaOutcome = 'issued' | 'unauthenticated' | 'denied' | 'invalid' | 'failed';

export interface CaServiceDeps extends RefusalLogDeps {
  /** Asked in order; the first that recognises its kind of credential and accepts it decides. */
  readonly authenticators: readonly Authenticator[];
  /** Absent: nobody may ask in another name. */
  readonly authorizer?: NodeAuthorizer;
  readonly signer: LeafSigner;
  readonly log: Logger;
  /** Once for each request. */
  readonly onOutcome: (outcome: CaOutcome) => void;
}

export function caService(deps: CaServiceDeps): RpcService {
  const service = new CaService(deps);
  return rpcService(IstioCertificateService, {
    createCertificate: async (request, context) =>
      create(IstioCertificateResponseSchema, { certChain: await service.create(request, context) }),
  });
}

class CaService {
  readonly #deps: CaServiceDeps;
  readonly #refusals: RefusalLog;

  constructor(deps: CaServiceDeps) {
    this.#deps = deps;
    this.#refusals = new RefusalLog(deps);
  }

  /** Leaf, each intermediate, and last all roots in one element. */
  async create(request: IstioCertificateRequest, context: CallContext): Promise<string[]> {
    const caller = await this.#authenticated(context);
    const identity = this.#allowed(caller, request, context);
    const csr = this.#csrOf(request, caller, context);
    const ttlMs = this.#ttlOf(request, caller, context);
    const { chainPem, rootsPem } = this.#sign(identity, csr, ttlMs);
    this.#deps.onOutcome('issued');
    this.#deps.log.debug?.('certificate issued', { caller: caller.identity, identity });
    return [...chainPem, rootsPem.join('')];
  }

  async #authenticated(context: CallContext): Promise<Caller> {
    const reasons: string[] = [];
    for (const authenticator of this.#deps.authenticators) {
      try {
        const caller = await authenticator.authenticate(context);
        if (caller !== undefined) return caller;
      } catch (error) {
        reasons.push(`${authenticator.name}: ${messageOf(error)}`);
      }
    }
    this.#refuse('unauthenticated', context, { why: reasons.join('; ') || 'no credential that is known here' });
    throw unauthenticated();
  }

  /** The identity to issue: that of the caller, or the one it may impersonate. */
  #allowed(caller: Caller, { metadata }: IstioCertificateRequest, context: CallContext): string {
    const requested = metadata?.[IMPERSONATED] ?? '';
    if (requested === '') return caller.identity;
    const text = typeof requested === 'string' ? requested : JSON.stringify(requested);
    const { authorizer } = this.#deps;
    const why = authorizer === undefined ? 'no node accounts are trusted' : authorizer.refusal(caller, text);
    if (why === undefined) return text;
    this.#refuse('denied', context, { why, caller: caller.identity, requested: text.slice(0, MAX_SHOWN) });
    throw unauthenticated();
  }

  /** Names in the request prove nothing and are not looked at; the common name is copied, as peers outside the mesh want it. */
  #csrOf({ csr }: IstioCertificateRequest, caller: Caller, context: CallContext): CertificateRequest {
    try {
      return parseCsr(csr);
    } catch (error) {
      this.#refuse('invalid', context, { why: messageOf(error), caller: caller.identity });
      throw rpcRefusal('INVALID_ARGUMENT', messageOf(error));
    }
  }

  #ttlOf({ validityDuration }: IstioCertificateRequest, caller: Caller, context: CallContext): number {
    if (validityDuration <= 0n) return DEFAULT_TTL_MS;
    if (validityDuration * 1_000n <= BigInt(MAX_TTL_MS)) return Number(validityDuration) * 1_000;
    const why = `a lifetime of ${validityDuration} s is over ${MAX_TTL_MS / 1_000} s`;
    this.#refuse('invalid', context, { why, caller: caller.identity });
    throw rpcRefusal('INVALID_ARGUMENT', why);
  }

  #sign(identity: string, { publicKey, commonName }: CertificateRequest, ttlMs: number): IssuedCertificate {
    try {
      return this.#deps.signer.sign({ identity, publicKey, commonName, ttlMs });
    } catch (error) {
      this.#deps.onOutcome('failed');
      this.#refusals.say('the CA cannot sign', { error: messageOf(error) });
      if (!(error instanceof MeshError)) throw error;
      throw rpcRefusal('UNAVAILABLE', 'the CA cannot sign now');
    }
  }

  #refuse(outcome: CaOutcome, { peer }: CallContext, fields: Readonly<Record<string, string>>): void {
    this.#deps.onOutcome(outcome);
    this.#refusals.say('certificate request refused', { peer: hostOf(peer), ...fields });
  }
}

/** One text whatever was wrong: more would tell a stranger which accounts, pods and nodes there are. */
function unauthenticated(): MeshError {
  return rpcRefusal('UNAUTHENTICATED', 'request authentication failure');
}

/** Without the port, which differs each time. */
function hostOf(peer: string): string {
  return peer.replace(/:\d+$/, '');
}
