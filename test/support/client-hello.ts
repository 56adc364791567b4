/** The first record of a TLS client. */
import { once } from 'node:events';
import { duplexPair } from 'node:stream';
import tls from 'node:tls';

export async function clientHello(): Promise<Buffer> {
  const [near, far] = duplexPair();
  const socket = tls.connect({ socket: near, ALPNProtocols: ['h2'], minVersion: 'TLSv1.3' }).on('error', () => {});
  const [hello] = (await once(far, 'data')) as [Buffer];
  socket.destroy();
  return hello;
}
