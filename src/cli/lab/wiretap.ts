/** What a sniffer saw, as TCP streams: is there clear text, and is everything else TLS? (RFC 8446 §5.1). Pure. */
import { formatHostPort, type HostPort } from '../../base/ip.ts';
import type { TcpSegment } from './packet.ts';

/** One direction of one connection. */
export interface WireStream {
  readonly from: HostPort;
  readonly to: HostPort;
  /** In sequence order, from the first byte seen; empty when only handshakes and resets passed. */
  readonly bytes: Buffer;
}

export interface TlsRecords {
  readonly count: number;
  readonly bytes: number;
}

interface Direction {
  readonly from: HostPort;
  readonly to: HostPort;
  readonly firstSequence: number;
  /** Offset in the stream → payload; a repeated segment replaces its like. */
  readonly parts: Map<number, Uint8Array>;
  /** `Wiretap.position` after the last segment. */
  lastAt: number;
}

const TLS_HEADER_BYTES = 5;
/** 2^14 plus what encryption may add. */
const TLS_MAX_BYTES = 16_384 + 256;
/** change_cipher_spec, alert, handshake, application_data. */
const TLS_TYPES: ReadonlySet<number> = new Set([20, 21, 22, 23]);
/** Bound of what one tap keeps; a demo needs a few hundred KiB. */
const MAX_KEPT_BYTES = 64 * 1024 * 1024;

export class Wiretap {
  /** By addresses and ports; a SYN begins anew. */
  readonly #current = new Map<string, Direction>();
  readonly #all: Direction[] = [];
  #keptBytes = 0;
  #position = 0;

  /** Grows with every segment: what came `since` a position can be asked for. */
  get position(): number {
    return this.#position;
  }

  add(segment: TcpSegment): void {
    const key = `${formatHostPort(segment.from)} ${formatHostPort(segment.to)}`;
    const known = segment.isSyn ? undefined : this.#current.get(key);
    const direction = known ?? this.#begin(key, segment);
    this.#position += 1;
    direction.lastAt = this.#position;
    if (segment.payload.length === 0) return;
    this.#keptBytes += segment.payload.length;
    if (this.#keptBytes > MAX_KEPT_BYTES) throw new RangeError('a wiretap is full; this traffic is no demonstration');
    direction.parts.set((segment.sequence - direction.firstSequence) >>> 0, segment.payload);
  }

  #begin(key: string, { from, to, sequence, isSyn }: TcpSegment): Direction {
    const firstSequence = (sequence + (isSyn ? 1 : 0)) >>> 0;
    const direction: Direction = { from, to, firstSequence, parts: new Map(), lastAt: 0 };
    this.#current.set(key, direction);
    this.#all.push(direction);
    return direction;
  }

  /** Streams with any segment after `since`, whole, in the order they began. */
  streams(since = 0): readonly WireStream[] {
    const active = this.#all.filter((direction) => direction.lastAt > since);
    return active.map(({ from, to, parts }) => {
      const inOrder = [...parts].sort(([a], [b]) => a - b).map(([, part]) => part);
      return { from, to, bytes: Buffer.concat(inOrder) };
    });
  }

  /** Streams in which `text` can be read. */
  findClear(text: string): readonly WireStream[] {
    return this.streams().filter((stream) => stream.bytes.includes(text));
  }
}

/** Undefined unless `bytes` is TLS records from its first byte on; the last one may be cut. */
export function readTlsRecords(bytes: Uint8Array): TlsRecords | undefined {
  let at = 0;
  let count = 0;
  while (at + TLS_HEADER_BYTES <= bytes.length) {
    const length = ((bytes[at + 3] ?? 0) << 8) | (bytes[at + 4] ?? 0);
    if (!TLS_TYPES.has(bytes[at] ?? 0) || bytes[at + 1] !== 3 || length > TLS_MAX_BYTES) return undefined;
    at += TLS_HEADER_BYTES + length;
    count += 1;
  }
  return count === 0 ? undefined : { count, bytes: bytes.length };
}
