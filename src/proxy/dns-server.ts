/** The DNS proxy of one pod: UDP and TCP listeners on loopback in its namespace, reached through redirection of port 53. */
import type dgram from 'node:dgram';
import type net from 'node:net';
import { MeshError } from '../base/errors.ts';
import { formatHostPort, type HostPort, ipFamily } from '../base/ip.ts';
import type { ListenOptions } from '../sys/sys.ts';
import { listenOn } from '../sys/tcp.ts';
import { datagramSocket } from '../sys/udp.ts';
import { AcceptFailures } from './accept-failures.ts';
import { serveDnsConnection } from './dns-connection.ts';
import { DnsForwarder } from './dns-forward.ts';
import { DnsHandler } from './dns-handler.ts';
import type { DnsProxySettings } from './dns-settings.ts';
import type { PodContext } from './pod-context.ts';

export class DnsServer {
  readonly #context: PodContext;
  readonly #settings: DnsProxySettings;
  readonly #forwarder: DnsForwarder;
  readonly #handler: DnsHandler;
  readonly #datagrams: dgram.Socket[] = [];
  readonly #listeners: net.Server[] = [];
  readonly #connections = new Set<net.Socket>();
  readonly #failures: AcceptFailures;
  #isClosed = false;

  constructor(context: PodContext, settings: DnsProxySettings) {
    const { pod, deps } = context;
    const place = { sys: deps.sys, clock: deps.clock, netns: pod.netns, mark: context.settings.mark };
    this.#context = context;
    this.#settings = settings;
    this.#forwarder = new DnsForwarder(place, settings);
    this.#failures = new AcceptFailures(deps);
    this.#handler = new DnsHandler(context, this.#forwarder, settings.maxQueries);
  }

  /** Throws `CV-BIND` and the like; `close` then gives back what was bound. */
  listen(): void {
    for (const address of this.#addresses()) {
      this.#bindUdp(address);
      this.#bindTcp(address);
      this.#context.deps.log.debug?.('starting local DNS server', {
        address: formatHostPort(address),
        component: 'dns',
        pod: this.#context.pod.uid,
      });
    }
  }

  /** Asks as an application over TCP would, without a socket; `undefined` when that would get no reply. */
  async ask(query: Uint8Array): Promise<Uint8Array | undefined> {
    let reply: Uint8Array | undefined;
    await this.#handler.serve(query, 'tcp', async (made) => {
      reply = made;
    });
    return reply;
  }

  /** New clients over TCP go to the next agent; datagrams are answered until `close`. */
  stopListening(): void {
    for (const server of this.#listeners.splice(0)) server.close();
  }

  /** Resolves when no query is in progress; at once when closed, because what is unsent then stays so. */
  get idle(): Promise<void> {
    return this.#isClosed ? Promise.resolve() : this.#handler.idle;
  }

  close(error: MeshError): void {
    this.#isClosed = true;
    this.stopListening();
    for (const socket of this.#datagrams.splice(0)) socket.close();
    for (const socket of this.#connections) socket.destroy();
    this.#forwarder.close(error);
  }

  #addresses(): readonly HostPort[] {
    const { listen } = this.#settings;
    if (listen.kind === 'address') return [listen.address];
    const { settings, deps, pod } = this.#context;
    const hasIpv6 = settings.isIpv6Enabled && deps.sys.hasIpv6(pod.netns, 'lo');
    return [{ ip: '127.0.0.1', port: listen.port }, ...(hasIpv6 ? [{ ip: '::1', port: listen.port }] : [])];
  }

  #bindUdp(address: HostPort): void {
    const { sys } = this.#context.deps;
    const fd = sys.socketUdp(this.#context.pod.netns, this.#options(address));
    const socket = datagramSocket(sys, fd, ipFamily(address.ip));
    this.#datagrams.push(socket);
    socket.on('message', (message, { address: ip, port }) => {
      void this.#handler.serve(message, 'udp', async (reply) => {
        // Nobody can be at port 0, and Node refuses to send there.
        if (reply === undefined || port === 0 || this.#isClosed) return;
        const { promise, resolve } = Promise.withResolvers<void>();
        socket.send(reply, port, ip, () => resolve());
        await promise;
      });
    });
  }

  #bindTcp(address: HostPort): void {
    const { sys, clock } = this.#context.deps;
    const { fd } = sys.listenTcp(this.#context.pod.netns, this.#options(address));
    const server = listenOn(fd, {
      onConnection: (socket) => {
        this.#failures.reset();
        if (this.#connections.size >= this.#settings.maxConnections) return this.#turnAway(socket);
        this.#connections.add(socket);
        socket.once('close', () => this.#connections.delete(socket));
        serveDnsConnection(socket, {
          clock,
          idleMs: this.#settings.connectionIdleMs,
          serve: (message, send) => this.#handler.serve(message, 'tcp', send),
        });
      },
      onError: (error) => this.#failures.note(address.port, error),
    });
    this.#listeners.push(server);
  }

  #turnAway(socket: net.Socket): void {
    socket.destroy();
    const { maxConnections } = this.#settings;
    const error = new MeshError('CV-LIMIT', `this pod already has ${maxConnections} connections for DNS`);
    const refusal = this.#context.refusalFor(error);
    this.#context.deps.dns.answered({ transport: 'tcp', outcome: { kind: 'refused', refusal } });
  }

  #options({ ip, port }: HostPort): ListenOptions {
    const { mark, isReusePort } = this.#context.settings;
    return { address: ip, port, isReusePort, ...(mark !== undefined && { mark }) };
  }
}
