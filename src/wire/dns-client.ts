/** DNS from the side that asks: a query for the addresses of a name, and those in its reply. */
import { decode, encode, RECURSION_DESIRED } from 'dns-packet';
import { MeshError, messageOf } from '../base/errors.ts';
import { canonicalIp } from '../base/ip.ts';

/** `name` without the final dot. */
export function encodeAddressQuery(id: number, name: string, type: 'A' | 'AAAA'): Uint8Array {
  return encode({ type: 'query', id, flags: RECURSION_DESIRED, questions: [{ name, type }] });
}

/** Canonical text, in the order of the reply, whatever aliases lead there. Throws `CV-WIRE-MALFORMED`. */
export function readAddresses(reply: Uint8Array, type: 'A' | 'AAAA'): readonly string[] {
  try {
    const { answers = [] } = decode(Buffer.from(reply));
    return answers.flatMap((answer) => {
      const text = answer.type === type && typeof answer.data === 'string' ? canonicalIp(answer.data) : undefined;
      return text ?? [];
    });
  } catch (error) {
    throw new MeshError('CV-WIRE-MALFORMED', `DNS reply: ${messageOf(error)}`, {}, { cause: error });
  }
}
