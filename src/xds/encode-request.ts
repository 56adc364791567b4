/** What an xDS client says, as bytes. */
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { type Clock, delay } from '../base/clock.ts';
import type { AdsRequest } from '../model/ads-state.ts';
import type { Node } from '../wire/pb/core_pb.ts';
import { DeltaDiscoveryRequestSchema } from '../wire/pb/discovery_pb.ts';

const NACK_CODE = 3;
/** Versions that are encoded in one turn of the event loop, about 1 ms: verdicts are given on the same thread. */
const TURN_VERSIONS = 1_000;

/** Without its versions. */
export function encodeRequest({ isFirst, error, ...request }: AdsRequest, node: Node): Uint8Array {
  return encoded({
    ...(isFirst && { node }),
    typeUrl: request.typeUrl,
    resourceNamesSubscribe: [...request.subscribe],
    resourceNamesUnsubscribe: [...request.unsubscribe],
    responseNonce: request.nonce,
    ...(error !== undefined && { errorDetail: { code: NACK_CODE, message: error } }),
  });
}

/**
 * With its versions, which a large mesh has 100,000 of: in slices, since encoded messages one after the other are one message
 * with the entries of all.
 */
export async function encodeFirstRequest(request: AdsRequest, node: Node, clock: Clock): Promise<Uint8Array> {
  const parts = [encodeRequest(request, node)];
  let slice: [string, string][] = [];
  for (const entry of request.initialVersions) {
    slice.push(entry);
    if (slice.length < TURN_VERSIONS) continue;
    parts.push(encoded({ initialResourceVersions: Object.fromEntries(slice) }));
    slice = [];
    await delay(clock, 0);
  }
  return Buffer.concat([...parts, encoded({ initialResourceVersions: Object.fromEntries(slice) })]);
}

function encoded(fields: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): Uint8Array {
  return toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, fields));
}
