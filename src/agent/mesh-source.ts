/** Where the mesh state comes from: a mesh file, a control plane, or both into one index. */
import { join } from 'node:path';
import { delay } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { tlsOptions } from '../identity/tls-policy.ts';
import { EMPTY_MESH, MeshIndex, type MeshState } from '../model/mesh-index.ts';
import type { MeshUpdate } from '../model/mesh-update.ts';
import { formatRpcAddress } from '../rpc/address.ts';
import { RpcChannel } from '../rpc/channel.ts';
import { closeFd } from '../sys/duplicate.ts';
import { readBounded } from '../sys/files.ts';
import { collectGarbage } from '../sys/garbage.ts';
import type { AgentMetrics } from '../telemetry/metrics.ts';
import { rfc3339 } from '../telemetry/timestamp.ts';
import { XdsClient } from '../xds/client.ts';
import { type LocalMesh, MeshFile } from '../xds/mesh-file.ts';
import { nodeOf } from '../xds/node.ts';
import { ResponseLog } from '../xds/response-log.ts';
import type { MeshView } from './admin/views.ts';
import type { AgentDeps } from './agent.ts';
import type { AgentConfig } from './settings/config.ts';
import type { XdsConfig } from './settings/xds.ts';
import type { EnrolledPod } from './verdicts/local-pods.ts';
import type { VerdictAuthority } from './verdicts/verdict-authority.ts';

export interface MeshSourceParts {
  readonly authority: VerdictAuthority;
  readonly metrics: AgentMetrics;
  /** The log of the process before this one; owned. */
  readonly keptFd?: number | undefined;
}

/** Largest kept state that is read at a start, bytes: a mesh of a million workloads. */
const MAX_KEPT_BYTES = 512 * 1024 * 1024;

type SourceView = Pick<MeshView, 'source' | 'lastLoadAt' | 'lastError' | 'controlPlane'>;

export class MeshSource {
  /** Resolves when the whole mesh has been told once, by all sources. */
  readonly told: Promise<void>;
  readonly #file: MeshFile | undefined;
  readonly #client: XdsClient | undefined;
  readonly #kept: ResponseLog | undefined;
  readonly #isOnDemand: boolean;
  readonly #clusterId: string;

  /** `undo` closes what it opens. Nothing is read or dialled before `start`. */
  constructor(config: AgentConfig, deps: AgentDeps, parts: MeshSourceParts, undo: AsyncDisposableStack) {
    const { xds, localMesh } = config;
    const told = Promise.withResolvers<void>();
    this.told = settled(told.promise, parts.authority, deps);
    this.#isOnDemand = xds?.isOnDemand === true;
    this.#clusterId = config.clusterId;
    if (xds === undefined) {
      told.resolve();
      if (parts.keptFd !== undefined) closeFd(parts.keptFd);
    } else {
      this.#kept = undo.use(keptState(xds, config, deps, parts.keptFd));
      const archive = this.#kept;
      this.#client = undo.use(xdsClient(xds, config, deps, { ...parts, undo, archive, onReady: told.resolve }));
    }
    if (this.#client !== undefined && this.#isOnDemand) parts.authority.askFor(this.#client);
    if (localMesh !== undefined) this.#file = undo.use(meshFile(localMesh, config, deps, parts));
  }

  /** Throws `CV-MESH-FILE` when there is a mesh file and no good version to start with. A control plane is waited for by `told`. */
  start(): void {
    this.#file?.start();
    this.#client?.start();
  }

  /** On demand nobody need tell about the pods of this node: each is asked for while it is served. */
  follow({ namespace, name }: Pick<EnrolledPod, 'namespace' | 'name'>): Disposable {
    const left = new AbortController();
    if (this.#isOnDemand) {
      // Answered or given up: who waits for the pod looks at the mesh.
      this.#client?.fetch(podUid(this.#clusterId, namespace, name), left.signal).catch(() => undefined);
    }
    return { [Symbol.dispose]: () => left.abort() };
  }

  /** A descriptor of what the control plane has told, the caller's; none when there is no control plane. */
  async keptFd(): Promise<number | undefined> {
    return await this.#kept?.descriptor();
  }

  /** Another process keeps the mesh from now on. */
  keepNoMore(): void {
    this.#kept?.retire();
  }

  /** What the mesh file says, as it is in force. */
  get fileMesh(): MeshState {
    return this.#file?.mesh ?? EMPTY_MESH;
  }

  get view(): SourceView {
    const status = this.#client?.status;
    const file = this.#file?.state;
    const lastLoadedMs = file?.lastLoadedMs;
    const lastError = status?.lastError ?? file?.lastError;
    return {
      source: [status?.peer, file?.path].filter((name) => name !== undefined).join(' and '),
      ...(lastLoadedMs !== undefined && { lastLoadAt: rfc3339(lastLoadedMs) }),
      ...(lastError !== undefined && { lastError }),
      ...(status !== undefined && {
        controlPlane: { isConnected: status.isConnected, isComplete: status.isReady, isBehind: status.isBehind },
      }),
    };
  }
}

/** A first push of so many leaves more behind than it needs: its bytes, and what was made of them on the way. */
const LARGE_MESH = 10_000;
/** Until the push is answered and nobody holds its bytes any more. */
const SETTLE_MS = 50;

async function settled(told: Promise<void>, { index }: VerdictAuthority, { clock, logs }: AgentDeps): Promise<void> {
  await told;
  if (index.workloads.size < LARGE_MESH) return;
  await delay(clock, SETTLE_MS);
  try {
    await collectGarbage();
  } catch (error) {
    // The mesh is told all the same; it only weighs more.
    logs.scope('state').debug?.('garbage not collected', { error: messageOf(error) });
  }
}

/** As istiod and our own control plane name pods. */
function podUid(cluster: string, namespace: string, name: string): string {
  return `${cluster}//Pod/${namespace}/${name}`;
}

interface ClientParts extends MeshSourceParts {
  readonly undo: AsyncDisposableStack;
  readonly archive: ResponseLog;
  readonly onReady: () => void;
}

function xdsClient(xds: XdsConfig, config: AgentConfig, deps: AgentDeps, parts: ClientParts): XdsClient {
  const { clock, random, logs } = deps;
  const { undo, authority, metrics, archive, onReady } = parts;
  const log = logs.scope('xds');
  return new XdsClient(
    { node: nodeOf(xds.node), isOnDemand: xds.isOnDemand },
    {
      clock,
      random,
      log,
      channel: undo.use(controlPlaneChannel(xds, config, deps)),
      metrics: metrics.forXds(),
      onUpdate: (update) => applied(update, authority, metrics),
      onReady,
      archive,
    },
  );
}

function controlPlaneChannel({ server }: XdsConfig, config: AgentConfig, { clock }: AgentDeps): RpcChannel {
  const { address, roots, altHostname, token, headers } = server;
  const options = {
    address,
    name: 'control plane',
    failureCode: 'CV-XDS',
    tls: { roots, context: tlsOptions(config.tls), ...(altHostname !== undefined && { altHostname }) },
    credentials: { token, clusterId: config.clusterId, headers },
  } as const;
  return new RpcChannel(options, { clock, files: { read: readBounded } });
}

/** For the next start; without a place on disk for the next process alone, which gets a file that has no name. */
function keptState(
  xds: XdsConfig,
  { snapshotDir, runDir, nodeName }: AgentConfig,
  { logs }: AgentDeps,
  inheritedFd: number | undefined,
): ResponseLog {
  const scope = JSON.stringify([formatRpcAddress(xds.server.address), nodeName, xds.isOnDemand]);
  const isNameless = snapshotDir === undefined;
  const path = join(snapshotDir ?? runDir, 'mesh.xds');
  return new ResponseLog({ path, isNameless, inheritedFd, scope, maxBytes: MAX_KEPT_BYTES, log: logs.scope('xds') });
}

function meshFile(
  source: LocalMesh,
  { xds }: AgentConfig,
  { clock, logs }: AgentDeps,
  { authority, metrics }: MeshSourceParts,
): MeshFile {
  let before = EMPTY_MESH;
  return new MeshFile(source, {
    clock,
    log: logs.scope('state'),
    onMesh: (state) => {
      // Beside a control plane the file is not the whole mesh: only what it took back itself may go.
      if (xds === undefined) authority.replace(state);
      else authority.apply(new MeshIndex(before).updateTo(state));
      before = state;
      metrics.own.meshFileLoaded('ok');
      metrics.own.policiesRejected(authority.index.policies.rejected().length);
    },
    onRefused: () => metrics.own.meshFileLoaded('failed'),
  });
}

function applied(update: MeshUpdate, authority: VerdictAuthority, metrics: AgentMetrics): void {
  authority.apply(update);
  const { policies, rejectedPolicies, removedPolicies } = update;
  if (policies.length + rejectedPolicies.length + removedPolicies.length === 0) return;
  metrics.own.policiesRejected(authority.index.policies.rejected().length);
}
