/** Who calls a service of the control plane, and how that is found out: client certificate or Kubernetes token. */
import { MeshError } from '../base/errors.ts';
import { formatSpiffeId, isSegment, parseSpiffeId } from '../model/spiffe.ts';
import type { CallContext } from '../rpc/service.ts';
import { readCertificate } from '../wire/x509-san.ts';

export interface Caller {
  /** SPIFFE URI that the credential proves. */
  readonly identity: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Header `clusterid`: whose API server vouches for the caller; empty = that of the control plane. */
  readonly clusterId: string;
  /** Pod that the token is bound to; absent for every other credential. */
  readonly pod?: { readonly name: string; readonly uid: string };
}

export interface Authenticator {
  /** For the log. */
  readonly name: string;
  /** `undefined`: the call carries nothing of this kind. Rejects, with the precise reason, when it carries something wrong. */
  authenticate(context: CallContext): Promise<Caller | undefined>;
}

/** A client certificate that the server has verified already. It is bound to no pod, so its holder can be nobody else. */
export function certificateAuthenticator(trustDomain: string): Authenticator {
  return {
    name: 'client certificate',
    async authenticate({ clientCertificate, header }) {
      if (clientCertificate === undefined) return undefined;
      const { uriSans } = readCertificate(clientCertificate);
      const id = uriSans.map(parseSpiffeId).find((parsed) => parsed !== undefined);
      if (id?.trustDomain !== trustDomain) throw refusal(`it names ${uriSans.join(', ') || 'nobody'}`);
      const { namespace, serviceAccount } = id;
      return { identity: formatSpiffeId(id), namespace, serviceAccount, clusterId: header('clusterid') ?? '' };
    },
  };
}

/** `status` of a TokenReview (authentication.k8s.io/v1). */
export interface TokenReviewStatus {
  readonly authenticated?: boolean;
  /** Those of the question that the token is for. */
  readonly audiences?: readonly string[];
  readonly error?: string;
  readonly user?: {
    readonly username?: string;
    readonly groups?: readonly string[];
    readonly extra?: Readonly<Record<string, readonly string[] | undefined>>;
  };
}

/** Asks the API server of a cluster whether it issued the token for one of these audiences. Rejects when it cannot be asked. */
export type TokenReviewer = (
  token: string,
  audiences: readonly string[],
  clusterId: string,
  signal: AbortSignal,
) => Promise<TokenReviewStatus>;

export interface TokenOptions {
  readonly trustDomain: string;
  /** Default: `istio-ca` alone. */
  readonly audiences?: readonly string[];
  readonly review: TokenReviewer;
}

/** Kubernetes tokens are 1 to 2 KiB. */
const MAX_TOKEN_CHARS = 16_384;
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';
const SERVICE_ACCOUNTS = 'system:serviceaccounts';

/** Service account tokens, reviewed by the API server that issued them. */
export function tokenAuthenticator({ trustDomain, audiences = ['istio-ca'], review }: TokenOptions): Authenticator {
  return {
    name: 'Kubernetes token',
    async authenticate({ header, signal }) {
      const token = bearerToken(header('authorization'));
      if (token === undefined) return undefined;
      const clusterId = header('clusterid') ?? '';
      const status = await review(token, audiences, clusterId, signal);
      // An API server that knows no audiences vouches for every token of the cluster.
      if (status.authenticated === true && !audiences.some((one) => status.audiences?.includes(one) === true)) {
        throw refusal(`it is not for ${audiences.join(' or ')}`);
      }
      return { ...reviewed(status, trustDomain), clusterId };
    },
  };
}

function bearerToken(authorization: string | undefined): string | undefined {
  const token = /^bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
  if (token !== undefined && token.length > MAX_TOKEN_CHARS) throw refusal('the token is too long');
  return token;
}

function reviewed(status: TokenReviewStatus, trustDomain: string): Omit<Caller, 'clusterId'> {
  const { username = '', groups = [], extra = {} } = status.user ?? {};
  if (status.error !== undefined && status.error !== '') throw refusal(`the API server says: ${status.error}`);
  if (status.authenticated !== true) throw refusal('the API server does not know it');
  if (!groups.includes(SERVICE_ACCOUNTS)) throw refusal(`${username} is no service account`);
  const [, namespace = '', serviceAccount = ''] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username) ?? [];
  if (!isSegment(namespace) || !isSegment(serviceAccount)) throw refusal(`"${username}" is no service account`);
  const [name] = extra[POD_NAME] ?? [];
  const [uid] = extra[POD_UID] ?? [];
  return {
    identity: formatSpiffeId({ trustDomain, namespace, serviceAccount }),
    namespace,
    serviceAccount,
    ...(name !== undefined && uid !== undefined && { pod: { name, uid } }),
  };
}

function refusal(why: string): MeshError {
  return new MeshError('CV-RPC', why);
}
