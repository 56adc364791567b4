import { randomFillSync } from 'node:crypto';
import type { Random } from '../base/random.ts';

/** Random octets are taken this many at a time: a call into OpenSSL costs more than the octets. */
const POOL_BYTES = 4_096;

const pool = Buffer.allocUnsafeSlow(POOL_BYTES);
let used = POOL_BYTES;

export const systemRandom: Random = {
  next: () => Math.random(),
  hex(bytes) {
    if (bytes > POOL_BYTES) return randomFillSync(Buffer.allocUnsafe(bytes)).toString('hex');
    if (used + bytes > POOL_BYTES) {
      randomFillSync(pool);
      used = 0;
    }
    used += bytes;
    return pool.toString('hex', used - bytes, used);
  },
};
