/** The small HTTP/1.1 servers of the agent (admin, stats, readiness): every bound in one place. */
import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock } from '../../base/clock.ts';
import { hasCode, MeshError, messageOf } from '../../base/errors.ts';
import { formatHostPort } from '../../base/ip.ts';
import type { Logger } from '../../base/log.ts';
import { http } from '../../sys/http.ts';

export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** Every value of a header, in order; names in lower case. */
  headers(name: string): readonly string[];
  /** Aborted when the client goes away before the answer, or the server wants to close. */
  readonly signal: AbortSignal;
}

export interface HttpAnswer {
  readonly status: number;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** In place of a body: taken as fast as the client reads, with a turn of the event loop after each. */
  readonly pieces?: Iterable<string>;
}

export type HttpHandler = (request: HttpRequest) => HttpAnswer | Promise<HttpAnswer>;

export interface HttpServerOptions {
  readonly host: string;
  readonly port: number;
  /** For log lines and errors: `admin`, `stats`, `readiness`. */
  readonly component: string;
  readonly handler: HttpHandler;
  readonly clock: Clock;
  readonly log: Logger;
  /** A client that takes nothing of its answer for this long is cut off; a dump may be large, and it is in memory. */
  readonly stallTimeoutMs?: number;
  /** How long closing waits for answers under way. */
  readonly closeTimeoutMs?: number;
}

/** From the first byte of a request, or the start of the connection, to the end of its head. */
const HEAD_TIMEOUT_MS = 2_000;
/** Node looks for late heads this often. */
const HEAD_CHECK_MS = 250;
const MAX_HEAD_BYTES = 8_192;
/** Nobody needs more, and anyone on the network may dial the stats port. The newest takes the place of the oldest. */
const MAX_CONNECTIONS = 256;
/** A body is never read; this is how long one may dribble in before the connection is closed. */
const REQUEST_TIMEOUT_MS = 10_000;

const STALL_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;

/** Answers that have not reached their client, by its connection, and the wish to close. */
interface UnderWay {
  readonly answers: Map<Socket, Promise<void>>;
  readonly closing: AbortController;
}

export class HttpServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: HttpServerOptions;
  readonly #underWay: UnderWay;

  private constructor(server: Server, options: HttpServerOptions, underWay: UnderWay) {
    this.#server = server;
    this.#options = options;
    this.#underWay = underWay;
  }

  /** Rejects with `CV-BIND` when the port is taken. */
  static async listen(options: HttpServerOptions): Promise<HttpServer> {
    const server = http.createServer({
      headersTimeout: HEAD_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: HEAD_CHECK_MS,
      maxHeaderSize: MAX_HEAD_BYTES,
      noDelay: true,
    });
    boundConnections(server);
    const underWay: UnderWay = { answers: new Map(), closing: new AbortController() };
    server.on('request', (request, response) => respond(options, underWay, request, response));
    await bind(server, options);
    // Whatever the kernel says of one connection that could not be taken: the next one may be.
    server.on('error', (error) => options.log.debug?.('connection not accepted', { error: messageOf(error) }));
    const opened = new HttpServer(server, options, underWay);
    options.log.info?.('listener established', { address: opened.address, component: options.component });
    return opened;
  }

  get port(): number {
    return this.#bound.port;
  }

  get address(): string {
    return formatHostPort({ ip: this.#bound.address, port: this.#bound.port });
  }

  /** Lets answers under way reach their clients (long ones are asked to hurry), then closes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const { answers, closing } = this.#underWay;
    closing.abort();
    // Who reads drop by drop must not keep the port from a successor.
    const { clock, closeTimeoutMs = CLOSE_TIMEOUT_MS } = this.#options;
    using _deadline = clock.after(closeTimeoutMs, () => this.#server.closeAllConnections());
    // `close` cuts connections whose answer is written but not yet sent, so it comes second.
    await Promise.all(answers.values());
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
    this.#options.log.info?.('listener drained', { component: this.#options.component });
  }

  get #bound(): AddressInfo {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') throw new MeshError('CV-BUG', 'the server is not bound to a port');
    return bound;
  }
}

function boundConnections(server: Server): void {
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    const [oldest] = open;
    if (open.size > MAX_CONNECTIONS) oldest?.destroy();
  });
}

async function bind(server: Server, { host, port, component }: HttpServerOptions): Promise<void> {
  server.listen({ host, port });
  try {
    await once(server, 'listening');
  } catch (error) {
    const address = formatHostPort({ ip: host, port });
    const text = `failed to bind to address ${address}: ${messageOf(error)} (${component})`;
    throw new MeshError('CV-BIND', text, { address, component }, { cause: error });
  }
}

function respond(
  options: HttpServerOptions,
  { answers, closing }: UnderWay,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { socket } = request;
  // Of a client that does not wait for its answers, one packet would have us work on thousands at once.
  if (answers.has(socket)) return void socket.destroy();
  const gone = new AbortController();
  const { promise: sent, resolve } = Promise.withResolvers<void>();
  answers.set(socket, sent);
  response.once('close', () => {
    gone.abort();
    answers.delete(socket);
    resolve();
  });
  void answer(options, requestOf(request, AbortSignal.any([gone.signal, closing.signal])), response);
}

async function answer(
  { handler, log, component, stallTimeoutMs = STALL_TIMEOUT_MS }: HttpServerOptions,
  request: HttpRequest,
  response: ServerResponse,
): Promise<void> {
  let result: HttpAnswer;
  try {
    result = await handler(request);
  } catch (error) {
    log.warn?.('request failed', { component, path: request.path, error: messageOf(error) });
    result = { status: 500, type: 'text/plain', body: `${messageOf(error)}\n` };
  }
  response.setTimeout(stallTimeoutMs, () => response.destroy());
  try {
    await send(response, result);
  } catch (error) {
    // The answer is cut short, which its client sees. One that went away itself is nobody's business.
    if (!hasCode(error, 'ERR_STREAM_PREMATURE_CLOSE')) {
      log.warn?.('answer not finished', { component, path: request.path, error: messageOf(error) });
    }
  }
}

function requestOf(request: IncomingMessage, signal: AbortSignal): HttpRequest {
  const [path = '/', query = ''] = (request.url ?? '/').split(/\?(.*)/s);
  return {
    method: request.method ?? '',
    path,
    query: new URLSearchParams(query),
    headers: (name) => request.headersDistinct[name] ?? [],
    signal,
  };
}

async function send(response: ServerResponse, { status, type, headers, body, pieces }: HttpAnswer): Promise<void> {
  if (response.headersSent || response.destroyed) return;
  const typed = type === undefined ? {} : { 'content-type': type };
  if (pieces !== undefined) {
    response.writeHead(status, { ...typed, ...headers });
    await pipeline(response.req.method === 'HEAD' ? [] : inTurns(pieces), response);
    return;
  }
  const bytes = typeof body === 'string' ? Buffer.from(body) : (body ?? new Uint8Array());
  response.writeHead(status, {
    ...typed,
    'content-length': bytes.length,
    ...headers,
  });
  response.end(bytes);
}

async function* inTurns(pieces: Iterable<string>): AsyncGenerator<string> {
  for (const piece of pieces) {
    yield piece;
    await nextTurn();
  }
}
