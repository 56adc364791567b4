/** A control plane with a CA, by python3-grpcio and openssl, for one node of a test mesh. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ipBytes } from '../../../src/base/ip.ts';
import { NAMESPACE, type TestMesh } from '../../support/mesh.ts';
import type { OpensslCa } from '../../support/openssl-ca.ts';
import { type ProgramEvent, PYTHON, PythonProgram } from '../../support/python-program.ts';
import { serverCertificate } from '../../support/server-certs.ts';

const SCRIPT = fileURLToPath(new URL('control_plane.py', import.meta.url));
/** In the namespace of the node, where nothing else is. */
const PORT = 15_012;

type Fields = Readonly<Record<string, unknown>>;

/** One resource, as the program is ordered to serve it. */
export interface Order {
  readonly order: 'set' | 'raw' | 'remove';
  readonly kind: 'workload' | 'service' | 'policy';
  readonly name: string;
  readonly [field: string]: unknown;
}

export class ControlPlane implements AsyncDisposable {
  readonly node: string;
  readonly env: Readonly<Record<string, string>>;
  readonly #mesh: TestMesh;
  readonly #argv: readonly string[];
  readonly #served = new Map<string, Order>();
  #program: PythonProgram | undefined;

  private constructor(mesh: TestMesh, node: string, ca: OpensslCa) {
    this.node = node;
    this.#mesh = mesh;
    const { rootPem, chainPem, keyPem } = serverCertificate('DNS:localhost');
    const file = (name: string, text: string): string => {
      const path = join(mesh.lab.folder, `${node}-${name}`);
      writeFileSync(path, text, { mode: 0o600 });
      return path;
    };
    this.#argv = [SCRIPT, ca.folder, String(PORT), file('chain.pem', chainPem), file('key.pem', keyPem)];
    const root = file('root.pem', rootPem);
    this.env = {
      XDS_ADDRESS: `https://localhost:${PORT}`,
      XDS_ROOT_CA: root,
      CA_ADDRESS: `https://localhost:${PORT}`,
      CA_ROOT_CA: root,
      AUTH_TOKEN: file('token', 'good.token'),
      POD_NAME: `agent-${node}`,
      POD_NAMESPACE: 'istio-system',
      INSTANCE_IP: mesh.lab.node(node).ips[0] ?? '',
    };
  }

  static async start(mesh: TestMesh, node: string, ca: OpensslCa): Promise<ControlPlane> {
    const plane = new ControlPlane(mesh, node, ca);
    await plane.start();
    return plane;
  }

  /** Again with all that it has been ordered to serve, and nothing that it remembers of clients. */
  async start(): Promise<void> {
    const child = this.#mesh.lab
      .node(this.node)
      .inside.spawn([PYTHON, ...this.#argv], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#program = new PythonProgram(child);
    await this.#program.event('listening');
    for (const order of this.#served.values()) this.#program.order(order);
    if (this.#served.size > 0) await this.#program.event('done', this.#served.size);
  }

  async kill(): Promise<void> {
    await this.#program?.[Symbol.asyncDispose]();
    this.#program = undefined;
  }

  /** Resolves when it is being served. */
  async order(order: Order): Promise<void> {
    if (order.order === 'remove') this.#served.delete(order.name);
    else this.#served.set(order.name, order);
    const done = this.#program?.events.filter(({ event }) => event === 'done').length ?? 0;
    this.#program?.order(order);
    await this.#program?.event('done', done + 1);
  }

  /** Everything the program has said since it was started. */
  get events(): readonly ProgramEvent[] {
    return this.#program?.events ?? [];
  }

  async event(kind: string, count = 1, fields: Fields = {}): Promise<ProgramEvent> {
    if (this.#program === undefined) throw new Error(`the control plane of ${this.node} is not running`);
    return await this.#program.event(kind, count, fields);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

export function podWorkload(mesh: TestMesh, pod: string, fields: Fields = {}): Order {
  const { ips, node } = mesh.pod(pod);
  const name = `Kubernetes//Pod/${NAMESPACE}/${pod}`;
  const message = {
    uid: name,
    name: pod,
    namespace: NAMESPACE,
    serviceAccount: pod,
    addresses: ips.map(base64),
    tunnelProtocol: pod.startsWith('outside') ? 0 : 1,
    node,
    ...fields,
  };
  return { order: 'set', kind: 'workload', name, message, aliases: ips.map((ip) => `/${ip}`) };
}

export function service(hostname: string, vip: string, ports: readonly Fields[]): Order {
  const message = { name: hostname, namespace: NAMESPACE, hostname, addresses: [{ address: base64(vip) }], ports };
  return { order: 'set', kind: 'service', name: `${NAMESPACE}/${hostname}`, message, aliases: [`/${vip}`] };
}

export function policy(name: string, fields: Fields): Order {
  const message = { name, namespace: NAMESPACE, scope: 1, ...fields };
  return { order: 'set', kind: 'policy', name: `${NAMESPACE}/${name}`, message };
}

function base64(ip: string): string {
  return Buffer.from(ipBytes(ip) ?? []).toString('base64');
}
