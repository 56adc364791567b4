/**
 * The outside of a `DeltaDiscoveryResponse`: what it says about itself, and where its resources are. They are not decoded here:
 * a first push may have 100,000 of them, which would hold the event loop for a second.
 */
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { MeshError, messageOf } from '../base/errors.ts';

export interface DeltaResponse {
  readonly typeUrl: string;
  readonly nonce: string;
  /** One encoded `Resource` each; views of the message. */
  readonly resources: EncodedResources;
  readonly removed: readonly string[];
  /** Something there is too much of; the rest of that kind was left out. */
  readonly excess?: string;
}

/** Field numbers of `DeltaDiscoveryResponse` (wire/pb/discovery.proto). */
const FIELD = { resources: 2, typeUrl: 4, nonce: 5, removed: 6 } as const;

/** Far over the largest mesh; keeps a message of empty resources from becoming gigabytes of objects. */
const MAX_RESOURCES = 1_000_000;
/** Longest resource name, bytes. Far over what names need: the address of a WorkloadEntry, which is part of one, may be any text. */
export const MAX_NAME_BYTES = 65_536;
const MAX_DEPTH = 8;

/** Throws `CV-WIRE-MALFORMED`: with a message like this nobody knows what to answer. */
export function readDeltaResponse(message: Uint8Array): DeltaResponse {
  try {
    return read(message);
  } catch (error) {
    throw new MeshError(
      'CV-WIRE-MALFORMED',
      `xDS response: ${messageOf(error)}`,
      { bytes: message.length },
      { cause: error },
    );
  }
}

/** A response with these resources, each encoded already. */
export function writeDeltaResponse(typeUrl: string, resources: readonly Uint8Array[]): Uint8Array {
  const writer = new BinaryWriter().tag(FIELD.typeUrl, WireType.LengthDelimited).string(typeUrl);
  for (const resource of resources) writer.tag(FIELD.resources, WireType.LengthDelimited).bytes(resource);
  return writer.finish();
}

function read(message: Uint8Array): DeltaResponse {
  const reader = new BinaryReader(message);
  const resources = new EncodedResources(message);
  const removed: string[] = [];
  let typeUrl = '';
  let nonce = '';
  let excess: string | undefined;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    const isBytes = wireType === WireType.LengthDelimited;
    if (isBytes && field === FIELD.typeUrl) typeUrl = name(reader);
    else if (isBytes && field === FIELD.nonce) nonce = name(reader);
    else if (isBytes && field === FIELD.resources && resources.count < MAX_RESOURCES) resources.add(reader);
    else if (isBytes && field === FIELD.removed && removed.length < MAX_RESOURCES) removed.push(name(reader));
    else {
      if (field === FIELD.resources || field === FIELD.removed) excess = `more than ${MAX_RESOURCES} resources`;
      reader.skip(wireType, field, MAX_DEPTH);
    }
  }
  return { typeUrl, nonce, resources, removed, ...(excess !== undefined && { excess }) };
}

/** Cut: what is too long is nothing we know, and still has to be shown. */
function name(reader: BinaryReader): string {
  const bytes = reader.bytes();
  return new TextDecoder().decode(bytes.subarray(0, MAX_NAME_BYTES));
}

/** Where each resource starts and ends: two numbers instead of an object. */
export class EncodedResources {
  readonly #message: Uint8Array;
  readonly #ends: number[] = [];
  readonly #starts: number[] = [];

  constructor(message: Uint8Array) {
    this.#message = message;
  }

  get count(): number {
    return this.#starts.length;
  }

  /** Takes the length-delimited value at the position of `reader`. */
  add(reader: BinaryReader): void {
    const bytes = reader.bytes();
    this.#ends.push(reader.pos);
    this.#starts.push(reader.pos - bytes.length);
  }

  at(index: number): Uint8Array {
    return this.#message.subarray(this.#starts[index] ?? 0, this.#ends[index] ?? 0);
  }
}
