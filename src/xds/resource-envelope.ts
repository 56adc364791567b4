/** One encoded `Resource` of a response: its names, and the record inside it or the reason why there is none. */
import { fromBinary } from '@bufbuild/protobuf';
import { messageOf } from '../base/errors.ts';
import type { AdsResource } from '../model/ads-names.ts';
import { type Policy, policyKey, type RejectedPolicy } from '../model/policy.ts';
import { type Resource, ResourceSchema } from '../wire/pb/discovery_pb.ts';
import { type DecodedAddress, decodeAddress, decodeAuthorization, rejectedPolicy } from './decode-resource.ts';
import { quote } from './decode-value.ts';
import { MAX_NAME_BYTES } from './delta-response.ts';
import { TYPE_URL } from './type-url.ts';

type MeshRecord = DecodedAddress | { readonly kind: 'policy'; readonly key: string; readonly policy: Policy };

export type DecodedResource =
  | { readonly kind: 'good'; readonly resource: AdsResource; readonly record: MeshRecord }
  /** Same name and version as before, where the protocol says that this means the same content. */
  | { readonly kind: 'unchanged'; readonly resource: AdsResource }
  /** `policy`: whom a policy would have decided for. */
  | { readonly kind: 'bad'; readonly name: string; readonly why: string; readonly policy?: RejectedPolicy };

/** Key of the resource held under `name` with `version`, if it may be taken for the one that comes with both again. */
export type KnownKey = (name: string, version: string) => string | undefined;

/** Resource → Any and the like. */
const MAX_DEPTH = 4;
const MAX_ALIASES = 10_000;

/** Never throws. */
export function decodeResource(typeUrl: string, bytes: Uint8Array, knownKey: KnownKey): DecodedResource {
  let envelope: Resource | undefined;
  try {
    envelope = fromBinary(ResourceSchema, bytes, { recursionLimit: MAX_DEPTH, readUnknownFields: false });
    const content = contentOf(envelope, typeUrl);
    const { name, version, aliases } = envelope;
    const key = knownKey(name, version);
    if (key !== undefined) return { kind: 'unchanged', resource: { name, version, aliases, key } };
    const record = recordOf(typeUrl, content);
    // Nearly every resource is named by its key: one text for both, for as long as it is held.
    const heldName = name === record.key ? record.key : name;
    return { kind: 'good', record, resource: { name: heldName, version, aliases, key: record.key } };
  } catch (error) {
    return badResource(typeUrl, envelope, messageOf(error));
  }
}

function recordOf(typeUrl: string, content: Uint8Array): MeshRecord {
  if (typeUrl !== TYPE_URL.authorization) return decodeAddress(content);
  const policy = decodeAuthorization(content);
  return { kind: 'policy', key: policyKey(policy), policy };
}

function contentOf({ name, version, aliases, resource }: Resource, typeUrl: string): Uint8Array {
  if (name === '') throw new Error('it has no name');
  const isLong = [name, version, ...aliases].some((text) => Buffer.byteLength(text) > MAX_NAME_BYTES);
  if (isLong) throw new Error(`a name or version has more than ${MAX_NAME_BYTES} bytes`);
  if (aliases.length > MAX_ALIASES) throw new Error(`it has more than ${MAX_ALIASES} aliases`);
  if (resource === undefined) throw new Error('it has no content');
  if (resource.typeUrl !== typeUrl) throw new Error(`it holds a ${quote(resource.typeUrl)}`);
  return resource.value;
}

function badResource(typeUrl: string, envelope: Resource | undefined, why: string): DecodedResource {
  const content = envelope?.resource?.value;
  const isPolicy = typeUrl === TYPE_URL.authorization && content !== undefined;
  const policy = isPolicy ? rejectedPolicy(content, why) : undefined;
  return { kind: 'bad', name: envelope?.name ?? '', why, ...(policy !== undefined && { policy }) };
}
