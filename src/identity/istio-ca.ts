/** The CA of Istio's control plane: `IstioCertificateService/CreateCertificate`. */
import { create } from '@bufbuild/protobuf';
import { MeshError, messageOf, toMeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import { parseSpiffeId } from '../model/spiffe.ts';
import type { RpcChannel } from '../rpc/channel.ts';
import { type RpcStatus, rpcStatusOf } from '../rpc/status.ts';
import {
  type IstioCertificateRequest,
  IstioCertificateRequestSchema,
  IstioCertificateService,
} from '../wire/pb/citadel_pb.ts';
import { readCertificate } from '../wire/x509-san.ts';
import type { CertificateProvider, IssuedCertificate } from './certificate-provider.ts';
import { pemBlocks } from './pem.ts';

const ANSWER_TIMEOUT_MS = 10_000;
/** A chain has three or four elements of 1 KiB; a bundle may have some hundred roots. */
const MAX_ELEMENTS = 64;
const MAX_CHARS = 1024 * 1024;

export interface IstioCaOptions {
  /** Owned by the caller, with `CV-CA` as its failure code. */
  readonly channel: RpcChannel;
  /** The agent asks for the identities of its pods. Otherwise the CA gives whoever asks a certificate of its own. */
  readonly isShared: boolean;
}

export class IstioCa implements CertificateProvider {
  readonly title: string;
  readonly hasSharedBundle = true;
  readonly #channel: RpcChannel;
  readonly #isShared: boolean;

  constructor({ channel, isShared }: IstioCaOptions) {
    this.title = channel.peer;
    this.#channel = channel;
    this.#isShared = isShared;
  }

  async issue(identity: string, csrPem: string, ttlMs: number, signal: AbortSignal): Promise<IssuedCertificate> {
    const request = create(IstioCertificateRequestSchema, {
      csr: csrPem,
      validityDuration: BigInt(Math.round(ttlMs / 1_000)),
      ...(this.#isShared ? { metadata: { ImpersonatedIdentity: identity } } : {}),
    });
    const { certChain } = await this.#ask(request, signal);
    const issued = this.#read(certChain);
    this.#checkLeaf(identity, issued);
    return issued;
  }

  async #ask(request: IstioCertificateRequest, signal: AbortSignal) {
    try {
      const limits = { timeoutMs: ANSWER_TIMEOUT_MS, signal };
      return await this.#channel.unary(IstioCertificateService.method.createCertificate, request, limits);
    } catch (error) {
      throw refined(toMeshError(error, 'CV-CA'));
    }
  }

  /** Leaf, any number of intermediates, and last the trust bundle, which may hold several roots. */
  #read(certChain: readonly string[]): IssuedCertificate {
    const [leaf, ...rest] = certChain;
    const bundle = rest.at(-1);
    if (leaf === undefined) throw this.#unusable('its answer is empty');
    if (bundle === undefined) throw this.#unusable('its answer has a certificate and no root');
    const chars = certChain.reduce((sum, element) => sum + element.length, 0);
    if (certChain.length > MAX_ELEMENTS || chars > MAX_CHARS) throw this.#unusable('its answer is too long');
    return { chainPem: [leaf, ...rest.slice(0, -1)], rootsPem: [bundle] };
  }

  #checkLeaf(identity: string, { chainPem }: IssuedCertificate): void {
    const named = this.#firstIdentity(chainPem[0] ?? '');
    if (named === identity) return;
    throw this.#unusable(`it issued ${named ?? 'no mesh identity'} instead of ${identity}`);
  }

  #firstIdentity(leafPem: string): string | undefined {
    try {
      const [der = new Uint8Array()] = pemBlocks('CERTIFICATE', leafPem);
      return readCertificate(der).uriSans.find((uri) => parseSpiffeId(uri) !== undefined);
    } catch (error) {
      throw this.#unusable(`its certificate cannot be read: ${messageOf(error)}`);
    }
  }

  #unusable(why: string): MeshError {
    return new MeshError('CV-CA', `${this.title}: ${why}`);
  }
}

/** Which of our reasons a failed call is; every other one is `CV-CA`. */
const CODE_OF: Partial<Record<RpcStatus, ReasonCode>> = {
  UNAUTHENTICATED: 'CV-CA-AUTH',
  PERMISSION_DENIED: 'CV-CA-AUTH',
  // Token or roots of this side, which could not be read.
  FAILED_PRECONDITION: 'CV-CA-AUTH',
  UNAVAILABLE: 'CV-CA-UNREACHABLE',
  DEADLINE_EXCEEDED: 'CV-CA-UNREACHABLE',
  CANCELLED: 'CV-CA-UNREACHABLE',
};

function refined(error: MeshError): MeshError {
  const status = rpcStatusOf(error);
  const code = status === undefined ? undefined : CODE_OF[status];
  return code === undefined ? error : new MeshError(code, error.message, error.fields, { cause: error });
}
