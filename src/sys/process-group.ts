/** The effective group of this process: what the kernel writes on each socket it makes (credentials(7)). */
import { MeshError, messageOf } from '../base/errors.ts';

/** From now on, in every thread. Throws `CV-SYS` without the right to. */
export function takeGroup(gid: number): void {
  if (process.getegid?.() === gid) return;
  try {
    process.setegid?.(gid);
  } catch (error) {
    const message = `setegid(${gid}) failed: ${messageOf(error)}; run as root, or in that group`;
    throw new MeshError('CV-SYS', message, { gid }, { cause: error });
  }
}
