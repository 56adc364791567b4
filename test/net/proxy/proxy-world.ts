/** The data plane of one pod over loopback, with the real verdict authority: no root, no namespaces, no redirection. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { PodProxies } from '../../../src/agent/pod-proxies.ts';
import { TIMEOUTS } from '../../../src/agent/proxy-settings.ts';
import { VerdictAuthority } from '../../../src/agent/verdicts/verdict-authority.ts';
import type { Clock } from '../../../src/base/clock.ts';
import type { HostPort } from '../../../src/base/ip.ts';
import type { LogFields, Logger } from '../../../src/base/log.ts';
import type { CapturedPod } from '../../../src/capture/pod-source.ts';
import { TlsContexts } from '../../../src/identity/tls-context.ts';
import { connectTls } from '../../../src/identity/tls-handshake.ts';
import { EMPTY_MESH, type MeshState } from '../../../src/model/mesh-index.ts';
import type { TlsMaterial } from '../../../src/model/verdict.ts';
import type { Inheritance } from '../../../src/proxy/inheritance.ts';
import { type ClaimedStream, claimedOf, type ProxySettings, type StreamClaim } from '../../../src/proxy/settings.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { type LoopTime, systemLoopTime } from '../../../src/sys/loop-time.ts';
import { openNetns } from '../../../src/sys/netns.ts';
import { localAddress } from '../../../src/sys/sockets.ts';
import type { Sys } from '../../../src/sys/sys.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { systemRandom } from '../../../src/sys/system-random.ts';
import { ConnectionRecords } from '../../../src/telemetry/connection-records.ts';
import { DnsRecords } from '../../../src/telemetry/dns-records.ts';
import { AgentMetrics } from '../../../src/telemetry/metrics.ts';
import { CLIENT_SETTINGS, SERVER_SETTINGS } from '../../../src/tunnel/h2-settings.ts';
import { meshCa } from '../../support/certs.ts';
import { buildCrl, issuingOf } from '../../support/crl.ts';
import { DNS_SETTINGS, noHosts, SETTINGS, workload } from '../../unit/model/sample-mesh.ts';
import { Peer } from '../tunnel/h2-peers.ts';

export const SERVER = 'spiffe://cluster.local/ns/default/sa/server';
export const CLIENT = 'spiffe://cluster.local/ns/default/sa/client';
const PORTS = { hbone: 15_008, plaintext: 15_006, outbound: 15_001, socks: 15_080 } as const;
const POD: CapturedPod = {
  uid: 'p1',
  name: 'server',
  namespace: 'default',
  serviceAccount: 'server',
  netnsPath: '/proc/self/ns/net',
  options: { isIngressMode: false, rerouteInterfaces: [] },
};

const ca = await meshCa();
const materials: Record<string, TlsMaterial> = {
  [SERVER]: await ca.material(SERVER),
  [CLIENT]: await ca.material(CLIENT),
};

/** Key and certificate of the CA that every member of these tests trusts; the same each time. */
export async function materialOf(identity: string): Promise<TlsMaterial> {
  return (materials[identity] ??= await ca.material(identity));
}

/** A list of that CA on which the certificate of `identity` is. */
export async function revoking(identity: string): Promise<Buffer> {
  const { serialNumber } = new X509Certificate((await materialOf(identity)).chainPem);
  return buildCrl(issuingOf(ca), { serials: [serialNumber] });
}

/** The captured pod is 127.0.0.1; what else a test needs it adds. */
export const OPEN_MESH: MeshState = { ...EMPTY_MESH, workloads: [workload('server', { ips: ['127.0.0.1'] })] };

interface Line {
  readonly level: string;
  readonly message: string;
  readonly fields: LogFields;
}

interface WorldOptions {
  readonly settings?: Partial<ProxySettings>;
  readonly sys?: Partial<Sys>;
  readonly clock?: Clock;
  /** How time on the event loop is told. */
  readonly loopTime?: LoopTime;
  readonly drainGraceMs?: number;
  readonly mesh?: MeshState;
  /** `NETWORK` of the agent. */
  readonly network?: string;
  /** Of the pod; `server` unless a test says otherwise. */
  readonly serviceAccount?: string;
  /** The process before this one, and what came from it. */
  readonly former?: ProxyWorld;
  readonly inherited?: Inheritance;
  /** What the pod dials of itself skips the tunnel. */
  readonly isShortCutAccepted?: boolean;
}

export class ProxyWorld implements AsyncDisposable {
  readonly lines: Line[] = [];
  readonly authority: VerdictAuthority;
  readonly proxies: PodProxies;
  /** Of the captured pod. */
  readonly proxy: ReturnType<PodProxies['start']>;
  readonly contexts = new TlsContexts();
  readonly records: ConnectionRecords;
  readonly metrics = new AgentMetrics({ buildTag: 'test', hasProcessMetrics: false });
  /** Original destination of plaintext and outbound connections. */
  target: HostPort | undefined;
  /** Sockets made to dial. */
  dials = 0;
  readonly #undo = new AsyncDisposableStack();
  readonly #ports = new Map<number, number>();
  readonly #former: ProxyWorld | undefined;
  readonly #waiters = new Set<() => void>();

  constructor(options: WorldOptions = {}) {
    this.#former = options.former;
    const { clock = systemClock, drainGraceMs = 20_000, mesh = OPEN_MESH, network = '' } = options;
    const log = this.#logger();
    this.authority = new VerdictAuthority(
      {
        ...SETTINGS,
        network,
        nodeName: 'node-1',
        isPolicyLogAtInfo: false,
        dns: DNS_SETTINGS,
        isShortCutAccepted: options.isShortCutAccepted === true,
      },
      { clock, random: systemRandom, certificates: certificatesOf(materials), lookupHost: noHosts, log },
    );
    this.records = new ConnectionRecords({ metrics: this.metrics, accessLog: log, clock });
    const pod = { ...POD, serviceAccount: options.serviceAccount ?? POD.serviceAccount };
    this.authority.addPod(pod);
    this.authority.replace(mesh);
    this.proxies = new PodProxies({
      settings: { ...proxySettingsOfTests, ...options.settings },
      deps: {
        sys: { ...this.#sys(), ...options.sys },
        clock,
        random: systemRandom,
        verdicts: this.authority,
        contexts: this.contexts,
        telemetry: this.records,
        dns: new DnsRecords({ metrics: this.metrics, log, clock }),
        elsewhere: { claim: async (claim) => (await this.#former?.claim(claim)) ?? 'nowhere' },
        log,
      },
      drainGraceMs,
      loopTime: options.loopTime ?? systemLoopTime,
    });
    const netns = this.#undo.use(openNetns(POD.netnsPath));
    this.proxy = this.proxies.start(pod, netns, options.inherited);
    this.#undo.defer(() => this.stop('immediate'));
  }

  /** A suspended stream, of this process or of those before it. */
  async claim(claim: StreamClaim): Promise<ClaimedStream> {
    const here = await this.proxies.surrender(claim);
    return this.#former === undefined ? here : claimedOf([here, await this.#former.claim(claim)]);
  }

  stop(mode: 'graceful' | 'immediate'): Promise<void> {
    return this.proxy.stop(mode);
  }

  /** Where one of the listeners is. */
  port(listener: keyof typeof PORTS): number {
    return this.#ports.get(PORTS[listener]) ?? this.#former?.port(listener) ?? 0;
  }

  /** A TCP connection to one of the listeners; when it is refused, it may be reset before we see it connected. */
  async connect(listener: keyof typeof PORTS): Promise<net.Socket> {
    const socket = this.dial(listener);
    await new Promise<void>((resolve) => socket.once('connect', resolve).once('close', () => resolve()));
    return socket;
  }

  /** As `connect`, not connected yet. */
  dial(listener: keyof typeof PORTS): net.Socket {
    const socket = net
      .connect({ port: this.port(listener), host: '127.0.0.1', allowHalfOpen: true })
      .on('error', () => {});
    this.#undo.defer(() => void socket.destroy());
    return socket;
  }

  /** A tunnel to the pod, by another mesh member. */
  async tunnel(socket?: net.Socket, identity = CLIENT): Promise<Peer> {
    return new Peer('client', await handshake(socket ?? (await this.connect('hbone')), identity));
  }

  /** An application on loopback that answers with what it gets. */
  async app(onConnection: (socket: net.Socket) => void = (socket) => socket.pipe(socket)): Promise<HostPort> {
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      this.#undo.defer(() => void socket.destroy());
      onConnection(socket.on('error', () => {}));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.#undo.defer(() => void server.close());
    return { ip: '127.0.0.1', port: (server.address() as net.AddressInfo).port };
  }

  /** A listener whose queue is full: dials to it hang. */
  async silent(): Promise<HostPort> {
    const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0, backlog: 0 });
    this.#undo.defer(() => linuxSys.close(fd));
    const address = localAddress(fd) ?? { ip: '', port: 0 };
    const filler = net.connect({ port: address.port, host: address.ip }).on('error', () => {});
    this.#undo.defer(() => void filler.destroy());
    await once(filler, 'connect');
    return address;
  }

  /** Resolves with the first line that fits, written or still to come. */
  async line(fits: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      const found = this.lines.find(fits);
      if (found !== undefined) return found;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiters.add(resolve);
      await promise;
      this.#waiters.delete(resolve);
    }
  }

  /** Ends of connections, early refusals included. */
  get ends(): Line[] {
    return this.lines.filter(({ message }) => message === 'connection complete' || message === 'connection failed');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
    this.proxies[Symbol.dispose]();
  }

  #sys(): Sys {
    return {
      ...linuxSys,
      hasIpv6: () => false,
      originalDestination: () => this.target,
      listenTcp: (_netns, { port, backlog }) => {
        const made = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0, backlog: backlog ?? 128 });
        this.#ports.set(port, localAddress(made.fd)?.port ?? 0);
        return made;
      },
      socketUdp: (_netns, options) => linuxSys.socketUdp(undefined, options),
      socketTcp: (_netns, { family }) => {
        this.dials += 1;
        return linuxSys.socketTcp(undefined, { family });
      },
    };
  }

  #logger(): Logger {
    const method = (level: string) => (message: string, fields?: LogFields) => {
      this.lines.push({ level, message, fields: fields ?? {} });
      for (const tell of [...this.#waiters]) tell();
    };
    return { error: method('error'), warn: method('warn'), info: method('info') };
  }
}

export function handshake(socket: net.Socket, identity = CLIENT): ReturnType<typeof connectTls> {
  const material = materials[identity];
  if (material === undefined) throw new Error('no material');
  return connectTls(socket, material, [SERVER], { contexts: new TlsContexts(), clock: systemClock });
}

function certificatesOf(all: Readonly<Record<string, TlsMaterial>>) {
  return {
    async get(identity: string): Promise<TlsMaterial> {
      const material = all[identity];
      if (material === undefined) throw new Error(`no material for ${identity}`);
      return material;
    },
    prefetch(): void {},
    forget(): void {},
  };
}

export const proxySettingsOfTests: ProxySettings = {
  ports: PORTS,
  isIpv6Enabled: false,
  isReusePort: false,
  isShortCutAccepted: false,
  ...TIMEOUTS,
  idleTimeoutMs: 3_600_000,
  halfClosedTimeoutMs: 3_600_000,
  maxHandshakes: 512,
  maxTunnels: 4_096,
  maxConnections: 50_000,
  isFair: true,
  budget: { connections: 50_000, handshakesPerSecond: 1_000, bufferedBytes: 1 << 28, loopShare: 1 },
  hasRevocationLists: true,
  pool: { maxStreams: 100, idleReleaseMs: 300_000 },
  http2Client: CLIENT_SETTINGS,
  http2Server: SERVER_SETTINGS,
};
