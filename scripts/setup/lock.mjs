// One set-up at a time per checkout. The lock is an abstract unix socket: the kernel frees it when its owner dies.
import { createHash } from 'node:crypto';
import net from 'node:net';

const RETRY_MS = 200;
/** Nothing is said of a wait that is over at once: another run only looks whether all is there. */
const QUIET_LOOKS = 10;

/** Resolves to the listening server, or to undefined when another process holds the name. */
function tryLock(name) {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once('error', (error) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(`\0${name}`, () => resolve(server));
  });
}

/** Runs `work` while no other process of this checkout is in its own `work`. */
export async function withSetupLock(root, work) {
  const name = `culvert-setup-${createHash('sha256').update(root).digest('hex').slice(0, 16)}`;
  let server = await tryLock(name);
  for (let looks = 1; server === undefined; looks++) {
    if (looks === QUIET_LOOKS)
      process.stderr.write('set-up: another run is setting this checkout up, waiting for it\n');
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    server = await tryLock(name);
  }
  try {
    await work();
  } finally {
    server.close();
  }
}
