/** What V8 does by itself only when the process allocates on: an idle one would keep what it once needed. */
import { Session } from 'node:inspector/promises';

/**
 * Collects all garbage soon and gives its pages back to the system. Holds this thread for about 0.3 s per 100 MiB in use: for
 * the end of a start, when nobody is served yet.
 */
export async function collectGarbage(): Promise<void> {
  const session = new Session();
  session.connect();
  try {
    await session.post('HeapProfiler.collectGarbage');
  } finally {
    session.disconnect();
  }
}
