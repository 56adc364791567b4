/** The DNS proxy of one pod over loopback, with the real verdict authority and nameservers in the test's hands. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { encode, type RecordType } from 'dns-packet';
import { VerdictAuthority } from '../../../src/agent/verdicts/verdict-authority.ts';
import type { Clock } from '../../../src/base/clock.ts';
import { MeshError } from '../../../src/base/errors.ts';
import type { HostPort } from '../../../src/base/ip.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import { DnsServer } from '../../../src/proxy/dns-server.ts';
import type { DnsProxySettings } from '../../../src/proxy/dns-settings.ts';
import { PodContext } from '../../../src/proxy/pod-context.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { systemLoopTime } from '../../../src/sys/loop-time.ts';
import { openNetns } from '../../../src/sys/netns.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { ConnectionRecords } from '../../../src/telemetry/connection-records.ts';
import { DnsRecords } from '../../../src/telemetry/dns-records.ts';
import type { DnsReport } from '../../../src/telemetry/dns-report.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import type { LoopShare } from '../../../src/tunnel/loop-share.ts';
import { LoopShares } from '../../../src/tunnel/loop-shares.ts';
import { DnsFrames, dnsFrame } from '../../../src/wire/dns-frames.ts';
import { metricSum } from '../../support/metric-text.ts';
import { DNS_SETTINGS, noHosts, SETTINGS, service, vip, workload } from '../../unit/model/sample-mesh.ts';
import { proxySettingsOfTests } from '../proxy/proxy-world.ts';

const POD = { uid: 'p1', name: 'client', namespace: 'default', serviceAccount: 'client' };

const MESH: MeshState = {
  ...EMPTY_MESH,
  workloads: [workload('client', { ips: ['127.0.0.1'] })],
  services: [
    service('web', { vips: [vip('10.96.0.1'), vip('10.96.0.2'), vip('fd96::1')] }),
    service('large', { vips: Array.from({ length: 256 }, (_, i) => vip(`10.97.0.${i}`)) }),
  ],
};

interface WorldOptions {
  readonly nameservers: readonly { readonly address: HostPort }[];
  readonly settings?: Partial<DnsProxySettings>;
  readonly clock?: Clock;
  readonly mesh?: MeshState;
}

export class DnsWorld implements AsyncDisposable {
  readonly authority: VerdictAuthority;
  readonly reports: DnsReport[] = [];
  /** Of the event loop, that of the pod. */
  readonly share: LoopShare;
  readonly #metrics = new AgentMetrics({ buildTag: 'test', hasProcessMetrics: false });
  readonly #server: DnsServer;
  readonly #ports = { udp: 0, tcp: 0 };
  readonly #undo = new AsyncDisposableStack();

  constructor({ nameservers, settings = {}, clock = systemClock, mesh = MESH }: WorldOptions) {
    const certificates = { get: () => Promise.reject(new Error('none')), prefetch() {}, forget() {} };
    this.authority = new VerdictAuthority(
      { ...SETTINGS, nodeName: 'node-1', isPolicyLogAtInfo: false, dns: DNS_SETTINGS },
      { clock, random: systemRandom, certificates, lookupHost: noHosts, log: silentLogger },
    );
    this.authority.addPod(POD);
    this.authority.replace(mesh);
    const records = new DnsRecords({ metrics: this.#metrics, log: silentLogger, clock });
    const netns = this.#undo.use(openNetns('/proc/self/ns/net'));
    const context = new PodContext({ uid: POD.uid, netns }, proxySettingsOfTests, {
      sys: this.#sys(),
      clock,
      random: systemRandom,
      loop: new LoopShares({ time: systemLoopTime, clock }, undefined),
      verdicts: this.authority,
      contexts: new TlsContexts(),
      telemetry: new ConnectionRecords({ metrics: this.#metrics, accessLog: silentLogger, clock }),
      dns: {
        answered: (report) => {
          this.reports.push(report);
          records.answered(report);
        },
      },
      log: silentLogger,
    });
    this.share = context.share;
    this.#server = new DnsServer(context, {
      listen: { kind: 'address', address: { ip: '127.0.0.1', port: 0 } },
      nameservers: nameservers.map(({ address }) => address),
      timeoutMs: 5_000,
      attempts: 2,
      maxQueries: 512,
      maxConnections: 256,
      connectionIdleMs: 5_000,
      ...settings,
    });
    this.#server.listen();
    this.#undo.defer(() => this.stop());
  }

  stop(): void {
    this.#server.close(new MeshError('CV-DRAIN', 'the test is over'));
  }

  get idle(): Promise<void> {
    return this.#server.idle;
  }

  /** One query, one reply. */
  async ask(query: Uint8Array, transport: 'udp' | 'tcp' = 'udp'): Promise<Buffer> {
    return transport === 'udp' ? await this.#askUdp(query) : await this.#askTcp(query);
  }

  /** A client socket for UDP, connected to the proxy. */
  async udp(): Promise<dgram.Socket> {
    const socket = dgram.createSocket('udp4');
    this.#undo.defer(() => void socket.close());
    socket.connect(this.#ports.udp, '127.0.0.1');
    await once(socket, 'connect');
    return socket;
  }

  /** A client connection. */
  async tcp(): Promise<net.Socket> {
    const socket = net.connect({ port: this.#ports.tcp, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {});
    this.#undo.defer(() => void socket.destroy());
    await once(socket, 'connect');
    return socket;
  }

  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return metricSum(await this.#metrics.render(), name, labels);
  }

  metricsPage(): Promise<string> {
    return this.#metrics.render();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }

  async #askUdp(query: Uint8Array): Promise<Buffer> {
    const socket = await this.udp();
    const reply = once(socket, 'message') as Promise<[Buffer]>;
    socket.send(query);
    return (await reply)[0];
  }

  async #askTcp(query: Uint8Array): Promise<Buffer> {
    const socket = await this.tcp();
    socket.end(dnsFrame(query));
    const [reply = Buffer.alloc(0)] = await messagesOf(socket);
    return reply;
  }

  #sys() {
    return {
      ...linuxSys,
      socketUdp: (...[, options]: Parameters<typeof linuxSys.socketUdp>) => {
        const fd = linuxSys.socketUdp(undefined, options);
        // Listeners are bound to loopback, sockets for nameservers to any address.
        if (options.address === '127.0.0.1') this.#ports.udp = localAddress(fd)?.port ?? 0;
        return fd;
      },
      listenTcp: (...[, options]: Parameters<typeof linuxSys.listenTcp>) => {
        const made = linuxSys.listenTcp(undefined, options);
        this.#ports.tcp = localAddress(made.fd)?.port ?? 0;
        return made;
      },
      socketTcp: (...[, options]: Parameters<typeof linuxSys.socketTcp>) => linuxSys.socketTcp(undefined, options),
    };
  }
}

/** All messages of a connection until its end, however it ends. */
export async function messagesOf(socket: net.Socket): Promise<Buffer[]> {
  const frames = new DnsFrames();
  const messages: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => messages.push(...frames.push(chunk).map((message) => Buffer.from(message))));
  socket.on('end', () => socket.destroy());
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve));
  return messages;
}

export function query(name: string, type: RecordType = 'A', id = 0x1234): Buffer {
  return encode({ type: 'query', id, flags: 0x0100, questions: [{ name, type }] });
}
