/** An xDS client of ours on loopback, with everything it did to be looked at, and control planes to serve it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { LogFields, Logger } from '../../../src/base/log.ts';
import { MeshIndex } from '../../../src/model/mesh-index.ts';
import type { MeshUpdate } from '../../../src/model/mesh-update.ts';
import type { RpcAddress } from '../../../src/rpc/address.ts';
import type { RpcChannelOptions } from '../../../src/rpc/channel.ts';
import { type CallContext, type RpcService, rpcService } from '../../../src/rpc/service.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import type { XdsMetrics } from '../../../src/telemetry/metrics-xds.ts';
import { AuthorizationSchema } from '../../../src/wire/pb/authorization_pb.ts';
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
  type ResourceSchema,
} from '../../../src/wire/pb/discovery_pb.ts';
import { AddressSchema, type ServiceSchema, type WorkloadSchema } from '../../../src/wire/pb/workload_pb.ts';
import { XdsClient } from '../../../src/xds/client.ts';
import { nodeOf } from '../../../src/xds/node.ts';
import type { ResponseLog } from '../../../src/xds/response-log.ts';
import { TYPE_URL } from '../../../src/xds/type-url.ts';
import { channelTo } from '../rpc/rpc-fixture.ts';

export const ADDRESS = TYPE_URL.address;
export const POLICY = TYPE_URL.authorization;

export const NODE = nodeOf({
  instanceIp: '10.0.0.9',
  podName: 'agent-x',
  podNamespace: 'istio-system',
  nodeName: 'node-1',
  metadata: { CLUSTER_ID: 'Kubernetes' },
  jsonMetadata: { LABELS: { app: 'agent' } },
});

export interface LogLine {
  readonly level: keyof Logger;
  readonly message: string;
  readonly fields: LogFields;
}

export interface Subject extends AsyncDisposable {
  readonly client: XdsClient;
  readonly index: MeshIndex;
  readonly updates: readonly MeshUpdate[];
  readonly lines: readonly LogLine[];
  /** Each metric event as text. */
  readonly counted: readonly string[];
  readonly isReady: boolean;
  /** Resolves once `is` holds. */
  until(is: () => boolean, what: string): Promise<void>;
}

export interface SubjectOptions {
  readonly isOnDemand?: boolean;
  readonly channel?: Partial<RpcChannelOptions>;
  readonly archive?: ResponseLog;
}

/** How long `until` waits: far over what anything here takes on a busy machine. */
const PATIENCE_MS = 90_000;
const POLL_MS = 10;

/** A client that runs. */
export function subject(
  address: RpcAddress,
  { isOnDemand = false, channel: options, archive }: SubjectOptions = {},
): Subject {
  const index = new MeshIndex();
  const updates: MeshUpdate[] = [];
  const lines: LogLine[] = [];
  const counted: string[] = [];
  const looks = new Set<() => void>();
  let isReady = false;
  const look = (): void => {
    for (const each of looks) each();
  };
  const level =
    (name: keyof Logger) =>
    (message: string, fields: LogFields = {}) => {
      lines.push({ level: name, message, fields });
      look();
    };
  const count = (text: string): void => {
    counted.push(text);
    look();
  };
  const metrics: XdsMetrics = {
    streamEnded: (reason) => count(`ended ${reason}`),
    messageReceived: (url) => count(`message ${url}`),
    messageRejected: (url) => count(`rejected ${url}`),
    connected: (isConnected) => count(`connected ${isConnected}`),
  };
  const channel = channelTo(address, { name: 'control plane', ...options });
  const client = new XdsClient(
    { node: NODE, isOnDemand },
    {
      channel,
      clock: systemClock,
      random: systemRandom,
      metrics,
      log: { error: level('error'), warn: level('warn'), info: level('info'), debug: level('debug') },
      onUpdate: (update) => {
        index.apply(update);
        updates.push(update);
        look();
      },
      onReady: () => {
        isReady = true;
        look();
      },
      ...(archive !== undefined && { archive }),
    },
  );
  client.start();
  return {
    client,
    index,
    updates,
    lines,
    counted,
    get isReady() {
      return isReady;
    },
    async until(is, what) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const check = (): void => {
        if (is()) resolve();
      };
      const late = (): void =>
        reject(new Error(`not in time: ${what}\n${lines.map((l) => JSON.stringify(l)).join('\n')}`));
      looks.add(check);
      using _timer = systemClock.after(PATIENCE_MS, late);
      // What a server saw is no event here.
      const poll = setInterval(check, POLL_MS);
      check();
      await promise.finally(() => {
        clearInterval(poll);
        looks.delete(check);
      });
    },
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      channel[Symbol.dispose]();
    },
  };
}

type WorkloadInit = MessageInitShape<typeof WorkloadSchema>;
type ServiceInit = MessageInitShape<typeof ServiceSchema>;
type PolicyInit = MessageInitShape<typeof AuthorizationSchema>;
export type ResourceInit = MessageInitShape<typeof ResourceSchema>;

export function workload(uid: string, fields: WorkloadInit = {}): ResourceInit {
  const value = { uid, name: uid, namespace: 'shop', addresses: [new Uint8Array([10, 0, 0, 1])], ...fields };
  return addressResource(uid, { case: 'workload', value });
}

export function service(hostname: string, fields: ServiceInit = {}): ResourceInit {
  const value = { name: hostname, namespace: 'shop', hostname, ...fields };
  return addressResource(`shop/${hostname}`, { case: 'service', value });
}

function addressResource(
  name: string,
  type: NonNullable<MessageInitShape<typeof AddressSchema>['type']>,
): ResourceInit {
  const value = toBinary(AddressSchema, create(AddressSchema, { type }));
  return { name, version: versionOf(value), resource: { typeUrl: ADDRESS, value } };
}

export function policy(name: string, fields: PolicyInit = {}): ResourceInit {
  const message = create(AuthorizationSchema, { name, namespace: 'shop', scope: 1, ...fields });
  return { name: `shop/${name}`, resource: { typeUrl: POLICY, value: toBinary(AuthorizationSchema, message) } };
}

function versionOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url').slice(0, 64);
}

export type ResponseInit = MessageInitShape<typeof DeltaDiscoveryResponseSchema>;

/** One stream as a scripted control plane sees it. */
export interface Talk extends CallContext {
  /** The next request; rejects when the client is gone. */
  heard(): Promise<DeltaDiscoveryRequest>;
  /** The next request of this type that carries this nonce: its ACK or NACK. */
  answer(typeUrl: string, nonce: string): Promise<DeltaDiscoveryRequest>;
}

export type Script = (talk: Talk, stream: number) => AsyncIterable<ResponseInit>;

/** Serves each stream with `script`; what it yields is sent as it is. The number counts streams from 0. */
export function scripted(script: Script): RpcService {
  let streams = 0;
  return rpcService(AggregatedDiscoveryService, {
    async *deltaAggregatedResources(requests, context): AsyncGenerator<DeltaDiscoveryResponse, void, undefined> {
      const iterator = requests[Symbol.asyncIterator]();
      const heard = async (): Promise<DeltaDiscoveryRequest> => {
        const { done, value } = await iterator.next();
        return done === true ? assert.fail('the client is gone') : value;
      };
      const answer = async (typeUrl: string, nonce: string): Promise<DeltaDiscoveryRequest> => {
        for (;;) {
          const request = await heard();
          if (request.typeUrl === typeUrl && request.responseNonce === nonce) return request;
        }
      };
      for await (const response of script({ ...context, heard, answer }, streams++)) {
        yield create(DeltaDiscoveryResponseSchema, response);
      }
    },
  });
}

/** Until the client leaves. */
export async function forever({ signal }: CallContext): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort');
}
