/** Reads every frame that passes an interface of a lab (packet(7)), so that a claim about the wire can be checked on the wire. */
import { read } from 'node:fs';
import { callError, libc } from '../../sys/libc.ts';
import type { LabNetns } from './namespace.ts';
import { readTcp, type TcpSegment } from './packet.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2_000_000;
/** ETH_P_ALL in network byte order. */
const ALL_PROTOCOLS = 0x0300;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_RCVBUFFORCE = 33;
const RECEIVE_BUFFER_BYTES = Int32Array.of(32 * 1024 * 1024);
/** `struct timeval`, 20 ms as two 64-bit words: a read waits this long at most, so that stopping ends. */
const READ_WAIT = Int32Array.of(0, 0, 20_000, 0);
/** The largest frame: a 64 KiB segment that the network card would have cut. */
const FRAME_BYTES = 128 * 1024;

export class Sniffer implements AsyncDisposable {
  readonly #fd: number;
  readonly #onSegment: (segment: TcpSegment) => void;
  readonly #ended: Promise<void>;
  #isStopping = false;
  #idleReads = 0;
  readonly #waiters = new Set<{ readonly after: number; readonly resolve: () => void }>();

  /** Sees both directions of `networkInterface`. `onSegment` gets TCP only, in the order of the wire. */
  static async start(
    netns: LabNetns,
    networkInterface: string,
    onSegment: (segment: TcpSegment) => void,
  ): Promise<Sniffer> {
    const index = await interfaceIndex(netns, networkInterface);
    return new Sniffer(
      netns.run(() => openPacketSocket(index)),
      onSegment,
    );
  }

  private constructor(fd: number, onSegment: (segment: TcpSegment) => void) {
    this.#fd = fd;
    this.#onSegment = onSegment;
    this.#ended = this.#readAll();
  }

  /** Resolves once everything that was on the wire before the call has been reported. */
  async settle(): Promise<void> {
    // The read under way may have begun before the call; only one that both began and ended idle after it counts.
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.add({ after: this.#idleReads + 2, resolve });
    await promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopping = true;
    await this.#ended;
  }

  async #readAll(): Promise<void> {
    const frame = new Uint8Array(FRAME_BYTES);
    while (!this.#isStopping) {
      const bytes = await readFrame(this.#fd, frame);
      if (bytes === 0) this.#idle();
      const segment = bytes === 0 ? undefined : readTcp(frame.subarray(0, bytes));
      if (segment !== undefined) this.#onSegment(segment);
    }
    libc.close(this.#fd);
    for (const waiter of this.#waiters) waiter.resolve();
  }

  #idle(): void {
    this.#idleReads += 1;
    for (const waiter of this.#waiters) {
      if (waiter.after > this.#idleReads) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }
}

/** One frame, or 0 when none came in time. */
function readFrame(fd: number, into: Uint8Array): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  read(fd, into, 0, into.length, null, (error, bytes) => {
    if (error === null) resolve(bytes);
    else if (error.code === 'EAGAIN' || error.code === 'ENETDOWN') resolve(0);
    else reject(error);
  });
  return promise;
}

async function interfaceIndex(netns: LabNetns, networkInterface: string): Promise<number> {
  const { stdout, stderr } = await netns.exec(['ip', '-json', 'link', 'show', 'dev', networkInterface]);
  const [link] = stdout === '' ? [] : (JSON.parse(stdout) as readonly { readonly ifindex: number }[]);
  if (link === undefined) throw new Error(`ip link show dev ${networkInterface}: ${stderr.trim()}`);
  return link.ifindex;
}

function openPacketSocket(interfaceIndex: number): number {
  const fd = libc.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, ALL_PROTOCOLS);
  if (fd < 0) throw callError('CV-SYS', 'socket(AF_PACKET)');
  const address = sockaddrLl(interfaceIndex);
  const isReady =
    libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, READ_WAIT, READ_WAIT.byteLength) === 0 &&
    libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES, 4) === 0 &&
    libc.bind(fd, address, address.length) === 0;
  if (isReady) return fd;
  const error = callError('CV-SYS', 'set-up of the packet socket');
  libc.close(fd);
  throw error;
}

/** `struct sockaddr_ll`: family, protocol, interface; the rest is for senders. */
function sockaddrLl(interfaceIndex: number): Uint8Array {
  const out = new Uint8Array(20);
  const view = new DataView(out.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ALL_PROTOCOLS, true);
  view.setInt32(4, interfaceIndex, true);
  return out;
}
