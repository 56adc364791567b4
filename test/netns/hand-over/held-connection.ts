/** Connections that no hand-over can move: bytes may have been read ahead on what comes through SOCKS. */
import { once } from 'node:events';
import type net from 'node:net';
import type { HostPort } from '../../../src/base/ip.ts';
import type { TestMesh } from '../../support/mesh.ts';

const SOCKS = { ip: '127.0.0.1', port: 15_080 };

/** For agents with `UNSTABLE_ENABLE_SOCKS5`. Reading, and its errors are ignored. */
export async function throughSocks(mesh: TestMesh, from: string, { ip, port }: HostPort): Promise<net.Socket> {
  const client = (await mesh.dial(from, SOCKS)).on('error', () => {}).resume();
  client.write(Buffer.from([5, 1, 0]));
  await once(client, 'data');
  client.write(Buffer.from([5, 1, 0, 1, ...ip.split('.').map(Number), port >> 8, port & 0xff]));
  await once(client, 'data');
  return client;
}
