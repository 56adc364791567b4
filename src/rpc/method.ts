/** Methods of gRPC services, taken from protobuf descriptors instead of generated stubs. */
import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { fromBinary, toBinary } from '@bufbuild/protobuf';

/** Deepest nesting of messages. Ours nest to 8; a Struct of node metadata may be deeper. */
const MAX_DEPTH = 32;

/** HTTP/2 path: `/package.Service/Method`. */
export function pathOf(method: { readonly name: string; readonly parent: { readonly typeName: string } }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

export function serializer<D extends DescMessage>(schema: D): (message: MessageShape<D>) => Buffer {
  return (message) => asBuffer(toBinary(schema, message));
}

/** Throws on malformed bytes; what is unknown is dropped, so that it costs no memory. */
export function parser<D extends DescMessage>(schema: D): (bytes: Uint8Array) => MessageShape<D> {
  return (bytes) => fromBinary(schema, bytes, { recursionLimit: MAX_DEPTH, readUnknownFields: false });
}

export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
