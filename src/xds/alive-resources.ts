/** What is left of responses one after the other: the last of each resource. Works in slices between turns of the event loop. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fromBinary } from '@bufbuild/protobuf';
import { ResourceSchema } from '../wire/pb/discovery_pb.ts';
import { readDeltaResponse, writeDeltaResponse } from './delta-response.ts';

/** Resources looked at in one turn, about 1 ms: verdicts are given on the same thread, and a first push may have 100,000. */
const TURN_RESOURCES = 500;
/** Size of one response that is given out, bytes, roughly. */
const CHUNK_BYTES = 1024 * 1024;

export class AliveResources {
  /** Type → name → encoded resource, in the order of their last change. */
  readonly #types = new Map<string, Map<string, Uint8Array>>();

  /** An encoded response. */
  async take(response: Uint8Array): Promise<void> {
    const { typeUrl, resources, removed } = readDeltaResponse(response);
    const byName = this.#types.get(typeUrl) ?? new Map<string, Uint8Array>();
    this.#types.set(typeUrl, byName);
    for (let i = 0; i < resources.count; i += 1) {
      const resource = resources.at(i);
      const { name } = fromBinary(ResourceSchema, resource);
      byName.delete(name);
      byName.set(name, resource);
      if (i % TURN_RESOURCES === 0) await nextTurn();
    }
    for (const name of removed) byName.delete(name);
    await nextTurn();
  }

  /** Few encoded ones, with all that is left. */
  async responses(): Promise<Uint8Array[]> {
    const responses: Uint8Array[] = [];
    for (const [typeUrl, byName] of this.#types) {
      for (const resources of chunks(byName.values())) {
        responses.push(writeDeltaResponse(typeUrl, resources));
        await nextTurn();
      }
    }
    return responses;
  }
}

/** At least one, so that a type that was told to be empty is remembered as told. */
function* chunks(resources: Iterable<Uint8Array>): Generator<readonly Uint8Array[]> {
  let chunk: Uint8Array[] = [];
  let bytes = 0;
  for (const resource of resources) {
    if (bytes > CHUNK_BYTES) {
      yield chunk;
      chunk = [];
      bytes = 0;
    }
    chunk.push(resource);
    bytes += resource.length;
  }
  yield chunk;
}
