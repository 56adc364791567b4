/** All that an agent finds in a cluster of Istio: istiod, an istio-cni on each node, and the environment that ztunnel's chart gives. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EmbeddedCa } from '../../src/identity/embedded-ca.ts';
import { systemClock } from '../../src/sys/system-clock.ts';
import { AGENT_TOKEN } from './ca-server.ts';
import { CniAgent } from './cni-agent.ts';
import { Istiod } from './istiod.ts';
import { type MeshOptions, NAMESPACE, type TestMesh, uidOf } from './mesh.ts';
import { type ServerCertificateFiles, serverCertificate } from './server-certs.ts';

const HOST = 'istiod.istio-system.svc';
/** The pod that leads to istiod. */
export const ISTIOD_POD = 'outside-istiod';

export interface IstioMeshOptions {
  /** Node → pods, `ISTIOD_POD` among them. */
  readonly nodes: Readonly<Record<string, readonly string[]>>;
  readonly enrolled: readonly string[];
  /** Pods that the control plane tells of; the others are known by their CNI agent alone. */
  readonly told: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export class IstioCluster implements AsyncDisposable {
  readonly istiod: Istiod;
  readonly #folder: string;
  readonly #certificate: ServerCertificateFiles;
  readonly #cnis = new Map<string, CniAgent>();
  readonly #cas: EmbeddedCa[] = [];
  readonly #onExit = (): void => rmSync(this.#folder, { recursive: true, force: true });

  private constructor(istiod: Istiod, certificate: ServerCertificateFiles, folder: string) {
    this.istiod = istiod;
    this.#certificate = certificate;
    this.#folder = folder;
    // A signal ends the lab and the process without a word to us.
    process.on('exit', this.#onExit);
  }

  static async start(): Promise<IstioCluster> {
    const certificate = serverCertificate(`DNS:${HOST}`);
    const folder = mkdtempSync(join(tmpdir(), 'culvert-istio-'));
    return new IstioCluster(await Istiod.start(certificate, folder), certificate, folder);
  }

  /** The CNI agents, once the mesh has started. */
  get cnis(): readonly CniAgent[] {
    return [...this.#cnis.values()];
  }

  cni(node: string): CniAgent {
    const agent = this.#cnis.get(node);
    if (agent === undefined) throw new Error(`no CNI agent on ${node}`);
    return agent;
  }

  /** A mesh whose agents know no other than this cluster. */
  meshOptions({ nodes, enrolled, told, env = {} }: IstioMeshOptions): MeshOptions {
    return {
      nodes,
      enrolled,
      ztunnelEnv: (mesh, node) => ({ ...this.#chartEnv(mesh, node), ...env }),
      beforeAgents: async (mesh) => {
        writeFileSync(join(this.#folder, 'root-cert.pem'), this.#certificate.rootPem);
        writeFileSync(join(this.#folder, 'istio-token'), AGENT_TOKEN);
        mesh.serve(ISTIOD_POD, 15_012, this.istiod.forward(net.connect));
        this.istiod.tellPods(mesh, [...told, ISTIOD_POD]);
        for (const node of new Set(enrolled.map((name) => mesh.pod(name).node))) {
          this.#cnis.set(node, new CniAgent(this.#socketOf(mesh, node)));
        }
        for (const name of enrolled) {
          const { node, inside } = mesh.pod(name);
          const pod = { uid: uidOf(name), name, namespace: NAMESPACE, serviceAccount: name, netnsPath: inside.path };
          await this.cni(node).prepare(pod);
        }
      },
    };
  }

  /** Another certificate authority, gone with the cluster. */
  async newCa(): Promise<EmbeddedCa> {
    const name = `ca-${this.#cas.length + 1}`;
    const ca = await EmbeddedCa.open(join(this.#folder, name), { clock: systemClock, log: {} });
    this.#cas.push(ca);
    return ca;
  }

  /** From the next renewal on certificates are signed by `ca`, and come with the roots of all of `trusted`. */
  signBy(ca: EmbeddedCa, trusted: readonly EmbeddedCa[]): void {
    const rootsPem = trusted.flatMap((each) => each.rootsPem);
    this.istiod.ca.signer = { sign: (order) => ({ ...ca.sign(order), rootsPem }) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.istiod[Symbol.asyncDispose]();
    for (const resource of [...this.#cas, ...this.#cnis.values()]) resource[Symbol.dispose]();
    process.off('exit', this.#onExit);
    this.#onExit();
  }

  #socketOf(mesh: TestMesh, node: string): string {
    return join(mesh.lab.folder, `zds-${node}.sock`);
  }

  /** With this machine's addresses. */
  #chartEnv(mesh: TestMesh, node: string): Readonly<Record<string, string>> {
    const address = `https://${mesh.pod(ISTIOD_POD).ip}:15012`;
    return {
      XDS_ADDRESS: address,
      CA_ADDRESS: address,
      ALT_XDS_HOSTNAME: HOST,
      ALT_CA_HOSTNAME: HOST,
      XDS_ROOT_CA: join(this.#folder, 'root-cert.pem'),
      CA_ROOT_CA: join(this.#folder, 'root-cert.pem'),
      AUTH_TOKEN: join(this.#folder, 'istio-token'),
      INPOD_UDS: this.#socketOf(mesh, node),
      CULVERT_RUN_DIR: mesh.runFolder(node),
      INPOD_ENABLED: 'true',
      ISTIO_META_CLUSTER_ID: 'Kubernetes',
      TERMINATION_GRACE_PERIOD_SECONDS: '3',
      POD_NAME: `ztunnel-${node}`,
      POD_NAMESPACE: 'istio-system',
      SERVICE_ACCOUNT: 'ztunnel',
      NODE_NAME: node,
      INSTANCE_IP: '10.0.0.1',
      LOG_FORMAT: 'json',
      RUST_LOG: 'info',
      RUST_BACKTRACE: '1',
      ISTIO_META_DNS_CAPTURE: 'false',
    };
  }
}
