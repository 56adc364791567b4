/** One xDS resource: bytes in, a record or a reason out. Bounded in depth and size, whatever the bytes are. */
import { fromBinary } from '@bufbuild/protobuf';
import { MeshError, messageOf } from '../base/errors.ts';
import { type Policy, type RejectedPolicy } from '../model/policy.ts';
import { type Service, serviceKey, type Workload } from '../model/workload.ts';
import { AuthorizationSchema } from '../wire/pb/authorization_pb.ts';
import { AddressSchema } from '../wire/pb/workload_pb.ts';
import { policyHead, policyRecord } from './resource-policy.ts';
import { serviceRecord } from './resource-service.ts';
import { refuse } from './resource-value.ts';
import { workloadRecord } from './resource-workload.ts';

/** `key`: canonical resource name. */
export type DecodedAddress =
  | { readonly kind: 'workload'; readonly key: string; readonly workload: Workload }
  | { readonly kind: 'service'; readonly key: string; readonly service: Service };

/** Largest single resource, bytes. A service with ten thousand addresses stays under it. */
const MAX_RESOURCE_BYTES = 4 * 1024 * 1024;
/** Messages nest to 6 (Authorization → Group → Rules → Match → Extension → Any). */
const MAX_DEPTH = 10;

/** Throws `CV-WIRE-MALFORMED` or `CV-WIRE-TOO-LARGE` with the field and the reason. */
export function decodeAddress(bytes: Uint8Array): DecodedAddress {
  const { type } = parse(bytes, () =>
    fromBinary(AddressSchema, bytes, { recursionLimit: MAX_DEPTH, readUnknownFields: false }),
  );
  switch (type.case) {
    case 'workload': {
      const workload = workloadRecord(type.value);
      return { kind: 'workload', key: workload.uid, workload };
    }
    case 'service': {
      const service = serviceRecord(type.value);
      return { kind: 'service', key: serviceKey(service), service };
    }
    case undefined:
      return refuse('address', 'is neither a workload nor a service');
  }
}

/** Throws as `decodeAddress`. Unknown fields are looked at: inside a rule they reject the policy. */
export function decodeAuthorization(bytes: Uint8Array): Policy {
  return policyRecord(authorization(bytes));
}

/**
 * Stands for a policy that `decodeAuthorization` refused for `why`; `undefined` when not even its target can be read, or when
 * it was only to be tried out.
 */
export function rejectedPolicy(bytes: Uint8Array, why: string): RejectedPolicy | undefined {
  try {
    const message = authorization(bytes);
    return message.dryRun ? undefined : { ...policyHead(message), why };
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}

function authorization(bytes: Uint8Array) {
  return parse(bytes, () =>
    fromBinary(AuthorizationSchema, bytes, { recursionLimit: MAX_DEPTH, readUnknownFields: true }),
  );
}

/** Whatever the codec throws is about the bytes. */
function parse<T>(bytes: Uint8Array, read: () => T): T {
  if (bytes.length > MAX_RESOURCE_BYTES) {
    throw new MeshError('CV-WIRE-TOO-LARGE', `resource of ${bytes.length} bytes, the limit is ${MAX_RESOURCE_BYTES}`);
  }
  try {
    return read();
  } catch (error) {
    throw new MeshError('CV-WIRE-MALFORMED', `not a protobuf message: ${messageOf(error)}`, {}, { cause: error });
  }
}
