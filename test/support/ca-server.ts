/** The CA service of `src/control/` on a real gRPC server, with an embedded CA of its own and tokens that a test makes up. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../src/base/clock.ts';
import type { LogFields } from '../../src/base/log.ts';
import { type CaOutcome, caService, type LeafSigner } from '../../src/control/ca-service.ts';
import { certificateAuthenticator, tokenAuthenticator } from '../../src/control/caller.ts';
import { NodeAuthorizer } from '../../src/control/node-authorization.ts';
import { EmbeddedCa } from '../../src/identity/embedded-ca.ts';
import { type RpcListen, RpcServer } from '../../src/rpc/server.ts';
import type { RpcService } from '../../src/rpc/service.ts';
import { systemClock } from '../../src/sys/system-clock.ts';

export const AGENT_TOKEN = 'token.of.ztunnel-1';

export interface CaServerOptions {
  readonly listen: RpcListen;
  /** `namespace/account` of the pods on the node of the agent; default: everybody. */
  readonly accounts?: ReadonlySet<string>;
  readonly isImpersonationOff?: boolean;
  readonly clock?: Clock;
  /** Where the files of the CA are, kept by the caller; default: a folder that goes with the server. */
  readonly folder?: string;
  /** Served on the same port, as istiod does. */
  readonly services?: readonly RpcService[];
}

export class CaServer implements AsyncDisposable {
  readonly ca: EmbeddedCa;
  /** What signs from the next request on. */
  signer: LeafSigner;
  readonly outcomes: CaOutcome[] = [];
  readonly lines: { readonly message: string; readonly fields: LogFields }[] = [];
  readonly #service: RpcService;
  readonly #options: CaServerOptions;
  readonly #undo = new AsyncDisposableStack();
  #server: RpcServer | undefined;
  #port = 0;

  private constructor(ca: EmbeddedCa, options: CaServerOptions) {
    this.ca = ca;
    this.signer = ca;
    this.#options = options;
    this.#service = this.#makeService();
  }

  static async start(options: CaServerOptions): Promise<CaServer> {
    await using undo = new AsyncDisposableStack();
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'culvert-ca-server-'));
    if (options.folder === undefined) undo.defer(() => rmSync(folder, { recursive: true }));
    const clock = options.clock ?? systemClock;
    const ca = undo.use(await EmbeddedCa.open(join(folder, 'ca'), { clock, log: {} }));
    const server = new CaServer(ca, options);
    server.#undo.use(undo.move());
    await server.resume();
    return server;
  }

  get port(): number {
    return this.#port;
  }

  /** As if the control plane were gone. */
  async suspend(): Promise<void> {
    await this.#server?.stop(0);
    this.#server = undefined;
  }

  /** Back at the same place. */
  async resume(): Promise<void> {
    const limits = { maxConnections: 100, maxStreamsPerConnection: 100, maxReceiveBytes: 1024 * 1024 };
    const { listen, services = [] } = this.#options;
    const again = listen.kind === 'tls' ? { ...listen, port: this.#port } : listen;
    const options = { listen: again, services: [this.#service, ...services], ...limits };
    this.#server = await RpcServer.listen(options, { clock: systemClock, log: {} });
    this.#port = this.#server.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.suspend();
    await this.#undo.disposeAsync();
  }

  #makeService(): RpcService {
    const { accounts, isImpersonationOff = false, clock = systemClock } = this.#options;
    const trustDomain = 'cluster.local';
    const log = { warn: (message: string, fields: LogFields = {}) => void this.lines.push({ message, fields }) };
    const authorizer = new NodeAuthorizer({
      trustedAccounts: new Set(['istio-system/ztunnel']),
      trustDomain,
      podsOf: () => ({
        pod: () => ({ uid: 'uid-1', serviceAccount: 'ztunnel', node: 'node-1' }),
        hasPod: ({ namespace, serviceAccount }) => accounts?.has(`${namespace}/${serviceAccount}`) ?? true,
      }),
    });
    return caService({
      authenticators: [
        certificateAuthenticator(trustDomain),
        tokenAuthenticator({ trustDomain, review: async (token) => reviewOf(token) }),
      ],
      ...(isImpersonationOff ? {} : { authorizer }),
      signer: { sign: (order) => this.signer.sign(order) },
      clock,
      log,
      onOutcome: (outcome) => this.outcomes.push(outcome),
    });
  }
}

function reviewOf(token: string) {
  if (token !== AGENT_TOKEN) return { authenticated: false };
  return {
    authenticated: true,
    audiences: ['istio-ca'],
    user: {
      username: 'system:serviceaccount:istio-system:ztunnel',
      groups: ['system:serviceaccounts'],
      extra: {
        'authentication.kubernetes.io/pod-name': ['ztunnel-1'],
        'authentication.kubernetes.io/pod-uid': ['uid-1'],
      },
    },
  };
}
