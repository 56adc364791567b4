/** ZDS, the protocol between a CNI agent and the proxy of its node: one protobuf message per packet. */
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { MeshError } from '../base/errors.ts';
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema, Version as ZdsVersion } from './pb/zds_pb.ts';

/** What both ends read at most of one packet, bytes. */
export const MAX_ZDS_BYTES = 1_024;
/** Leaves room for what surrounds the text in its packet, bytes. */
const MAX_ERROR_BYTES = 1_000;

export interface ZdsWorkload {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** From the CNI agent to the proxy. `uid` is that of the pod. */
export type ZdsRequest =
  /** Comes with one descriptor: the pod's network namespace. */
  | { readonly kind: 'add'; readonly uid: string; readonly workload?: ZdsWorkload }
  /** The pod exists, but its namespace is not known (yet). In a snapshot only. */
  | { readonly kind: 'keep'; readonly uid: string }
  | { readonly kind: 'del'; readonly uid: string }
  /** All pods of the node were told. */
  | { readonly kind: 'snapshot-sent' };

/** The first packet of a proxy. */
export function encodeHello(): Uint8Array {
  return encode(ZdsHelloSchema, create(ZdsHelloSchema, { version: ZdsVersion.V1 }));
}

/** The version that the proxy speaks; this page describes 1. Throws `CV-WIRE-MALFORMED`, as all decoders here. */
export function decodeHello(packet: Uint8Array): number {
  return decode(ZdsHelloSchema, packet).version;
}

/** Throws `CV-WIRE-TOO-LARGE` when it does not fit a packet. */
export function encodeRequest(request: ZdsRequest): Uint8Array {
  return encode(WorkloadRequestSchema, create(WorkloadRequestSchema, { payload: payloadOf(request) }));
}

export function decodeRequest(packet: Uint8Array): ZdsRequest {
  const { payload } = decode(WorkloadRequestSchema, packet);
  switch (payload.case) {
    case 'add': {
      const { workloadInfo: info } = payload.value;
      const uid = requireUid(payload.value);
      if (info === undefined) return { kind: 'add', uid };
      const { name, namespace, serviceAccount } = info;
      return { kind: 'add', uid, workload: { name, namespace, serviceAccount } };
    }
    case 'keep':
      return { kind: 'keep', uid: requireUid(payload.value) };
    case 'del':
      return { kind: 'del', uid: requireUid(payload.value) };
    case 'snapshotSent':
      return { kind: 'snapshot-sent' };
    case undefined:
      throw malformed('no payload that this version knows');
  }
}

/** The answer to one request: done, or why not. Longer texts are cut. */
export function encodeAck(error?: string): Uint8Array {
  const ack = { error: cut(error ?? '') };
  return encode(WorkloadResponseSchema, create(WorkloadResponseSchema, { payload: { case: 'ack', value: ack } }));
}

/** The error, `undefined` for success. */
export function decodeAck(packet: Uint8Array): string | undefined {
  const { payload } = decode(WorkloadResponseSchema, packet);
  if (payload.case === undefined) throw malformed('no payload that this version knows');
  return payload.value.error === '' ? undefined : payload.value.error;
}

function payloadOf(request: ZdsRequest): PayloadInit {
  switch (request.kind) {
    case 'add': {
      const { uid, workload } = request;
      return { case: 'add', value: { uid, ...(workload !== undefined && { workloadInfo: workload }) } };
    }
    case 'keep':
      return { case: 'keep', value: { uid: request.uid } };
    case 'del':
      return { case: 'del', value: { uid: request.uid } };
    case 'snapshot-sent':
      return { case: 'snapshotSent', value: {} };
  }
}

type PayloadInit = NonNullable<NonNullable<Parameters<typeof create<typeof WorkloadRequestSchema>>[1]>['payload']>;

function requireUid({ uid }: { readonly uid: string }): string {
  if (uid === '') throw malformed('no uid');
  return uid;
}

function encode<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): Uint8Array {
  const packet = toBinary(schema, message);
  if (packet.length <= MAX_ZDS_BYTES) return packet;
  const fields = { bytes: packet.length, limit: MAX_ZDS_BYTES };
  throw new MeshError('CV-WIRE-TOO-LARGE', 'ZDS message is over its limit', fields);
}

function decode<Desc extends DescMessage>(schema: Desc, packet: Uint8Array): MessageShape<Desc> {
  try {
    return fromBinary(schema, packet, { readUnknownFields: false });
  } catch (error) {
    throw malformed('no protobuf', error);
  }
}

function malformed(problem: string, cause?: unknown): MeshError {
  return new MeshError('CV-WIRE-MALFORMED', `ZDS message has ${problem}`, { problem }, { cause });
}

/** Whole characters only. */
function cut(text: string): string {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length <= MAX_ERROR_BYTES) return text;
  return new TextDecoder().decode(bytes.subarray(0, MAX_ERROR_BYTES), { stream: true });
}
