/** Connections that no hand-over can move: streams of a peer that does not resume. */
import type { Duplex } from 'node:stream';
import { duplexOf } from '../../../src/tunnel/stream-duplex.ts';
import { identityOf, type TestMesh } from '../../support/mesh.ts';
import { HboneClient, meshMaterial } from '../../support/mesh-hbone.ts';

/** To `port` of a captured pod, from one that is not, in a tunnel of its own. Reading, and its errors are ignored. */
export async function foreignStream(mesh: TestMesh, from: string, to: string, port: number): Promise<Duplex> {
  const material = await meshMaterial(mesh, identityOf(from));
  const { ip } = mesh.pod(to);
  const client = await HboneClient.open(mesh, from, { ip, material, expected: [identityOf(to)] });
  const { status, stream } = await client.connect(`${ip}:${port}`);
  if (status !== 200) throw new Error(`CONNECT was answered with ${status}`);
  return duplexOf(stream)
    .on('error', () => {})
    .resume();
}
