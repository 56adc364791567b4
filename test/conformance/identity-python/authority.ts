/** Istio's CA and the SPIFFE Workload API by python3-grpcio and openssl, for one node of a test mesh. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestMesh } from '../../support/mesh.ts';
import type { OpensslCa } from '../../support/openssl-ca.ts';
import { PYTHON, PythonProgram, skipWithoutPython } from '../../support/python-program.ts';
import { serverCertificate } from '../../support/server-certs.ts';

const SCRIPT = fileURLToPath(new URL('authority.py', import.meta.url));
/** In the namespace of the node, where nothing else is. */
const PORT = 15_012;

export const skipWithoutGrpc = skipWithoutPython('grpc', 'python3-grpcio');

export interface Served {
  readonly program: PythonProgram;
  /** How the agent of that node learns of it. */
  readonly env: Readonly<Record<string, string>>;
}

/** TLS on loopback of `node`, with a server certificate and a token that only this service knows. */
export async function serveIstioCa(mesh: TestMesh, node: string, ca: OpensslCa): Promise<Served> {
  const { rootPem, chainPem, keyPem } = serverCertificate('DNS:localhost');
  const file = (name: string, text: string): string => {
    const path = join(mesh.lab.folder, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };
  const identity = [file('ca-chain.pem', chainPem), file('ca-key.pem', keyPem)];
  const program = await start(mesh, node, ['istio-ca', ca.folder, String(PORT), ...identity]);
  const env = {
    CA_ADDRESS: `https://localhost:${PORT}`,
    CA_ROOT_CA: file('ca-root.pem', rootPem),
    AUTH_TOKEN: file('istio-token', 'good.token'),
  };
  return { program, env };
}

/** A unix socket with an SVID for each identity. */
export async function serveWorkloadApi(
  mesh: TestMesh,
  node: string,
  ca: OpensslCa,
  identities: readonly string[],
): Promise<Served> {
  const socket = join(mesh.lab.folder, `spiffe-${node}.sock`);
  const program = await start(mesh, node, ['workload-api', ca.folder, socket, ...identities]);
  return { program, env: { SPIFFE_ENDPOINT_SOCKET: `unix://${socket}` } };
}

async function start(mesh: TestMesh, node: string, argv: readonly string[]): Promise<PythonProgram> {
  const child = mesh.lab.node(node).inside.spawn([PYTHON, SCRIPT, ...argv], { stdio: ['pipe', 'pipe', 'pipe'] });
  const program = new PythonProgram(child);
  await program.event('listening');
  return program;
}
