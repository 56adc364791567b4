/** A python3-h2 program inside a pod, with a certificate of the mesh, and the JSON lines it prints. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { identityOf, type TestMesh } from '../../support/mesh.ts';
import { meshMaterial } from '../../support/mesh-hbone.ts';

/** The Python that Debian's packages belong to. */
const PYTHON = '/usr/bin/python3';
const WAIT_MS = 30_000;

/** Reason to skip; never in CI, where a missing python3-h2 is a failure. */
export const skipWithoutH2 =
  process.env['MESH_REQUIRE_ROOT'] === '1' || spawnSync(PYTHON, ['-c', 'import h2']).status === 0
    ? false
    : 'needs the Debian package python3-h2';

export type PeerEvent = Readonly<Record<string, unknown>> & { readonly event: string };

export class PythonPeer implements AsyncDisposable {
  readonly events: PeerEvent[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #news = new Set<() => void>();
  #said = '';

  private constructor(mesh: TestMesh, pod: string, argv: readonly string[]) {
    this.#child = mesh.pod(pod).inside.spawn([PYTHON, ...argv], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#exited = once(this.#child, 'close').then(() => this.#wake());
    this.#child.stderr?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()));
    if (this.#child.stdout !== null) {
      createInterface(this.#child.stdout).on('line', (line) => {
        this.events.push(JSON.parse(line) as PeerEvent);
        this.#wake();
      });
    }
  }

  /** Listens on port 15008 of `pod`, with the identity of `pod`. */
  static async serve(mesh: TestMesh, pod: string, options: readonly string[]): Promise<PythonPeer> {
    const peer = new PythonPeer(mesh, pod, [script('server.py'), ...(await files(mesh, identityOf(pod))), ...options]);
    await peer.event('listening');
    return peer;
  }

  /** Opens a tunnel from `pod` to port 15008 of `ip`, with `identity`, and waits for orders. */
  static async dial(mesh: TestMesh, pod: string, to: { ip: string; identity: string }): Promise<PythonPeer> {
    const peer = new PythonPeer(mesh, pod, [script('client.py'), ...(await files(mesh, to.identity)), to.ip]);
    await peer.event('tls');
    return peer;
  }

  order(order: Readonly<Record<string, unknown>>): void {
    this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
  }

  /** The event number `count` of this kind (and with these fields), past or future. */
  async event(kind: string, count = 1, fields: Readonly<Record<string, unknown>> = {}): Promise<PeerEvent> {
    for (;;) {
      const found = this.events.filter(
        (event) => event.event === kind && Object.entries(fields).every(([name, value]) => event[name] === value),
      );
      const event = found[count - 1];
      if (event !== undefined) return event;
      await this.#wait(kind);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  #wake(): void {
    for (const wake of this.#news) wake();
  }

  #wait(kind: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const report = (): string => `${this.#said}\n${this.events.map((event) => JSON.stringify(event)).join('\n')}`;
    if (this.#child.exitCode !== null) throw new Error(`python ended before "${kind}": ${report()}`);
    const timer = setTimeout(() => reject(new Error(`no event "${kind}": ${report()}`)), WAIT_MS);
    this.#news.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#news.delete(resolve);
    });
  }
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
