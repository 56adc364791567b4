/** A python3-h2 program inside a pod, with a certificate of the mesh. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { identityOf, type TestMesh } from '../../support/mesh.ts';
import { meshMaterial } from '../../support/mesh-hbone.ts';
import { PYTHON, PythonProgram, skipWithoutPython } from '../../support/python-program.ts';

export const skipWithoutH2 = skipWithoutPython('h2', 'python3-h2');

/** Listens on port 15008 of `pod`, with the identity of `pod`. */
export async function servePeer(mesh: TestMesh, pod: string, options: readonly string[]): Promise<PythonProgram> {
  const peer = start(mesh, pod, [script('server.py'), ...(await files(mesh, identityOf(pod))), ...options]);
  await peer.event('listening');
  return peer;
}

/** Opens a tunnel from `pod` to port 15008 of `ip`, with `identity`, and waits for orders. */
export async function dialPeer(
  mesh: TestMesh,
  pod: string,
  to: { readonly ip: string; readonly identity: string },
): Promise<PythonProgram> {
  const peer = start(mesh, pod, [script('client.py'), ...(await files(mesh, to.identity)), to.ip]);
  await peer.event('tls');
  return peer;
}

function start(mesh: TestMesh, pod: string, argv: readonly string[]): PythonProgram {
  return new PythonProgram(mesh.pod(pod).inside.spawn([PYTHON, ...argv], { stdio: ['pipe', 'pipe', 'pipe'] }));
}

function script(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** Paths of key, chain and roots for `identity`. */
async function files(mesh: TestMesh, identity: string): Promise<readonly string[]> {
  const { keyPem, chainPem, rootsPem } = await meshMaterial(mesh, identity);
  const folder = mkdtempSync(join(mesh.lab.folder, 'python-'));
  return Object.entries({ key: keyPem, chain: chainPem, roots: rootsPem.join('') }).map(([name, text]) => {
    const path = join(folder, `${name}.pem`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  });
}
