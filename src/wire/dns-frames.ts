/** DNS over TCP (RFC 1035 section 4.2.2): each message behind two octets of length. */

const LENGTH_BYTES = 2;

/** Incremental reader of one direction of one connection. Holds at most one message, 64 KiB. */
export class DnsFrames {
  readonly #length = new Uint8Array(LENGTH_BYTES);
  #lengthFilled = 0;
  #message: Uint8Array | undefined;
  #messageFilled = 0;

  /** Consumes all of `chunk` and returns copies of the messages it completed. */
  push(chunk: Uint8Array): Uint8Array[] {
    const messages: Uint8Array[] = [];
    let at = 0;
    while (at < chunk.length) {
      at += this.#message === undefined ? this.#fillLength(chunk, at) : this.#fillMessage(chunk, at, this.#message);
      if (this.#message !== undefined && this.#messageFilled === this.#message.length) {
        messages.push(this.#message);
        this.#message = undefined;
        this.#lengthFilled = 0;
      }
    }
    return messages;
  }

  #fillLength(chunk: Uint8Array, at: number): number {
    this.#length[this.#lengthFilled++] = chunk[at] ?? 0;
    if (this.#lengthFilled < LENGTH_BYTES) return 1;
    const [high = 0, low = 0] = this.#length;
    this.#message = new Uint8Array((high << 8) | low);
    this.#messageFilled = 0;
    return 1;
  }

  #fillMessage(chunk: Uint8Array, at: number, message: Uint8Array): number {
    const part = chunk.subarray(at, at + message.length - this.#messageFilled);
    message.set(part, this.#messageFilled);
    this.#messageFilled += part.length;
    return part.length;
  }
}

/** `message`, at most 65,535 octets, as it goes over TCP. */
export function dnsFrame(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(LENGTH_BYTES + message.length);
  new DataView(frame.buffer).setUint16(0, message.length);
  frame.set(message, LENGTH_BYTES);
  return frame;
}
