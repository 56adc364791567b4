/** How a TLS connection begins: with one record, whose first five octets say how long it is (RFC 8446 §5.1). */

const HANDSHAKE_RECORD = 22;
const HEADER_BYTES = 5;
/** RFC 8446 §5.1, plaintext records. */
const MAX_RECORD_BYTES = 2 ** 14;

/** True when `head` holds the whole first record, or what can be told to be none: more octets would change nothing. */
export function hasFirstRecord(head: Uint8Array): boolean {
  const [type, , , high, low] = head;
  if (type !== undefined && type !== HANDSHAKE_RECORD) return true;
  if (high === undefined || low === undefined) return false;
  const bytes = (high << 8) | low;
  return bytes > MAX_RECORD_BYTES || head.length >= HEADER_BYTES + bytes;
}
