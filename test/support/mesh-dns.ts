/** DNS from inside the pods of a test mesh: a nameserver in a pod, the agents' resolv.conf, `dig`, and raw datagrams. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostPort } from '../../src/base/ip.ts';
import type { LabPod } from '../../src/cli/lab/lab.ts';
import { linuxSys } from '../../src/sys/linux.ts';

/** A file of its own, gone with the process; agents are told of it before anybody knows their nameservers. */
export class ResolvConf {
  readonly #folder = mkdtempSync(join(tmpdir(), 'culvert-dns-'));
  readonly path = join(this.#folder, 'resolv.conf');

  constructor() {
    process.once('exit', () => rmSync(this.#folder, { recursive: true, force: true }));
  }

  /** Settings of an agent with the DNS proxy on. */
  get env(): Readonly<Record<string, string>> {
    return { ISTIO_META_DNS_CAPTURE: 'true', CULVERT_RESOLV_CONF: this.path };
  }

  write(lines: readonly string[]): void {
    writeFileSync(this.path, `${lines.join('\n')}\n`);
  }
}

/** What `dig` understood of one reply. */
export interface Dug {
  readonly status: string;
  /** For example `qr aa rd ra`. */
  readonly flags: string;
  /** `name type data`, sorted. */
  readonly answers: readonly string[];
}

/** Asks several questions in one `dig`, one after the other; options before the first. */
export async function dig(pod: LabPod, ...args: readonly string[]): Promise<Dug[]> {
  const { stdout } = await pod.inside.exec(['dig', '+noall', '+comments', '+answer', ...args]);
  return stdout
    .split(/^;; ->>HEADER<<- /m)
    .slice(1)
    .map((text) => ({
      status: /status: (\w+)/.exec(text)?.[1] ?? '',
      flags: /^;; flags: ([a-z ]*);/m.exec(text)?.[1]?.trim() ?? '',
      answers: [...text.matchAll(/^([^;\s]\S*)\s+\d+\s+IN\s+(\S+)\s+(.*)$/gm)]
        .map(([, name, type, data]) => `${name} ${type} ${data}`)
        .toSorted(),
    }));
}

/** Sends `query` to `to` from a connected socket inside the pod: an answer from another address would not arrive. */
export async function askFrom(pod: LabPod, to: HostPort, query: Uint8Array): Promise<Buffer> {
  const family = to.ip.includes(':') ? 6 : 4;
  const fd = pod.inside.run(() => linuxSys.socketUdp(undefined, { address: family === 6 ? '::' : '0.0.0.0', port: 0 }));
  const socket = dgram.createSocket(family === 6 ? 'udp6' : 'udp4');
  try {
    socket.bind({ fd });
    socket.connect(to.port, to.ip);
    await once(socket, 'connect');
    const reply = once(socket, 'message') as Promise<[Buffer]>;
    socket.send(query);
    return (await reply)[0];
  } finally {
    socket.close();
  }
}
