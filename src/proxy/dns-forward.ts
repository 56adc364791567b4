/**
 * Asks the nameservers of the node for one pod. Each server is asked once per `timeoutMs`, `attempts` times, and the next
 * one before the first has had all its time: a dead server costs a fraction of a timeout, once, because the server that
 * answered last is asked first.
 */
import { deadline } from '../base/clock.ts';
import { MeshError, toMeshError } from '../base/errors.ts';
import { readHeader } from '../wire/dns-query.ts';
import { type DnsExchange, type DnsPlace, type OpenExchange, tcpExchange, udpExchange } from './dns-exchange.ts';
import type { ForwardSettings } from './dns-settings.ts';

/** SERVFAIL, NOTIMP, REFUSED: another server may know better. */
const UNDECIDED: ReadonlySet<number> = new Set([2, 4, 5]);

export class DnsForwarder {
  readonly #place: DnsPlace;
  readonly #settings: ForwardSettings;
  readonly #open: Readonly<Record<'udp' | 'tcp', OpenExchange>>;
  readonly #running = new Set<Forward>();
  /** Index of the server that answered last. */
  #first = 0;

  constructor(place: DnsPlace, settings: ForwardSettings) {
    this.#place = place;
    this.#settings = settings;
    this.#open = { udp: udpExchange, tcp: tcpExchange(settings.timeoutMs) };
  }

  /** The reply as it came, whatever it says. Rejects when there is none. */
  async ask(query: Uint8Array, transport: 'udp' | 'tcp'): Promise<Uint8Array> {
    const forward = new Forward(this.#place, this.#settings, {
      query,
      open: this.#open[transport],
      first: this.#first,
      onAnswer: (server) => {
        this.#first = server;
      },
    });
    this.#running.add(forward);
    try {
      return await forward.reply;
    } finally {
      this.#running.delete(forward);
    }
  }

  /** Gives up all queries. */
  close(error: MeshError): void {
    for (const forward of this.#running) forward.fail(error);
  }
}

interface ForwardTask {
  readonly query: Uint8Array;
  readonly open: OpenExchange;
  readonly first: number;
  readonly onAnswer: (server: number) => void;
}

/** One query, until the first decided answer, or the last undecided one, or the end of all tries. */
class Forward {
  readonly reply: Promise<Uint8Array>;
  readonly #place: DnsPlace;
  readonly #settings: ForwardSettings;
  readonly #task: ForwardTask;
  readonly #settle = Promise.withResolvers<Uint8Array>();
  /** Server → exchange under way. */
  readonly #exchanges = new Map<number, DnsExchange>();
  #tries = 0;
  #latest: number | undefined;
  #timer: Disposable | undefined;
  #undecided: Uint8Array | undefined;
  #lastError: MeshError | undefined;

  constructor(place: DnsPlace, settings: ForwardSettings, task: ForwardTask) {
    this.#place = place;
    this.#settings = settings;
    this.#task = task;
    this.reply = this.#settle.promise;
    this.#next();
  }

  fail(error: MeshError): void {
    this.#end();
    this.#settle.reject(error);
  }

  #next(): void {
    this.#timer?.[Symbol.dispose]();
    const { nameservers, timeoutMs, attempts } = this.#settings;
    const stepMs = timeoutMs / nameservers.length;
    if (this.#tries < nameservers.length * attempts) {
      this.#timer = deadline(this.#place.clock, stepMs, () => this.#next());
      this.#try((this.#task.first + this.#tries++) % nameservers.length);
    } else if (this.#latest !== undefined || this.#exchanges.size === 0) {
      this.#giveUp();
    } else {
      // The last try failed at once; earlier ones may still be answered.
      this.#timer = deadline(this.#place.clock, stepMs, () => this.#giveUp());
    }
  }

  #try(server: number): void {
    this.#latest = server;
    const running = this.#exchanges.get(server);
    if (running !== undefined) return running.again();
    const address = this.#settings.nameservers[server];
    if (address === undefined) return;
    try {
      const exchange = this.#task.open(this.#place, address, this.#task.query, {
        onReply: (reply) => this.#received(server, reply),
        onFailure: (error) => this.#failed(server, error),
      });
      this.#exchanges.set(server, exchange);
    } catch (error) {
      this.#failed(server, toMeshError(error));
    }
  }

  #received(server: number, reply: Uint8Array): void {
    if (!UNDECIDED.has(readHeader(reply)?.rcode ?? 0)) {
      this.#task.onAnswer(server);
      this.#succeed(reply);
      return;
    }
    this.#undecided = reply;
    this.#over(server);
  }

  #failed(server: number, error: MeshError): void {
    this.#lastError = error;
    this.#over(server);
  }

  /** Nothing more comes from `server` in this try; unless a later one is waited for, go on at once. */
  #over(server: number): void {
    this.#exchanges.delete(server);
    if (this.#latest !== undefined && this.#latest !== server) return;
    this.#latest = undefined;
    this.#next();
  }

  #giveUp(): void {
    if (this.#undecided !== undefined) return this.#succeed(this.#undecided);
    const isSilent = this.#exchanges.size > 0 || this.#lastError === undefined;
    this.fail(isSilent ? timeoutError(this.#settings) : (this.#lastError ?? timeoutError(this.#settings)));
  }

  #succeed(reply: Uint8Array): void {
    this.#end();
    this.#settle.resolve(reply);
  }

  #end(): void {
    this.#timer?.[Symbol.dispose]();
    for (const exchange of this.#exchanges.values()) exchange[Symbol.dispose]();
    this.#exchanges.clear();
  }
}

function timeoutError({ nameservers, timeoutMs, attempts }: ForwardSettings): MeshError {
  const servers = nameservers.map(({ ip }) => ip).join(', ');
  return new MeshError('CV-DNS-TIMEOUT', `no answer from ${servers}`, { timeoutMs, attempts });
}
