/** The admin server: loopback only, ztunnel's paths and answers, and five of our own for the command line. */
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { reasonOf } from '../../base/reasons.ts';
import type { ConnectionView } from '../../telemetry/connection-view.ts';
import type { LogControl } from '../../telemetry/logger.ts';
import type { Inspect } from '../thread-inspector.ts';
import { DASHBOARD } from './dashboard.ts';
import { refusalOf } from './guard.ts';
import { type HttpAnswer, type HttpHandler, type HttpRequest, HttpServer } from './http-server.ts';
import { type JsonForm, jsonPieces } from './json-pieces.ts';
import { answerLogging } from './logging.ts';
import { PprofEndpoints } from './pprof-endpoints.ts';
import type { ConnectionsView, ExplainView, IdentitiesView, StatusView, UsageView } from './views.ts';

/** What the admin port shows and does; the composition root connects it. */
export interface AdminProviders {
  /** Sections by name, each data for `jsonPieces`; keys are sorted here. */
  configDump(): Promise<object>;
  status(): Promise<StatusView>;
  certificates(): IdentitiesView;
  connections(): Promise<ConnectionsView>;
  usage(): Promise<UsageView>;
  /** An open or remembered connection. */
  findConnection(id: string): Promise<ConnectionView | undefined>;
  /** Starts the graceful shutdown; resolves when it is over or its deadline has passed. */
  quit(): Promise<void>;
  readonly logging: LogControl;
  /** Threads by name, the main one first. */
  inspectors(): ReadonlyMap<string, Inspect>;
}

export interface AdminOptions {
  readonly port: number;
  readonly isIpv6Enabled: boolean;
  readonly providers: AdminProviders;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Route {
  /** Needs a loopback host and no foreign origin. */
  readonly isStateChanging: boolean;
  readonly answer: HttpHandler;
}

export interface AdminServer extends AsyncDisposable {
  readonly port: number;
}

/** Listens on 127.0.0.1 and, if enabled, on ::1 with the same port; never on anything else. */
export async function startAdminServer(options: AdminOptions): Promise<AdminServer> {
  await using undo = new AsyncDisposableStack();
  const pprof = undo.use(new PprofEndpoints(options.clock, () => options.providers.inspectors()));
  const handler = adminHandler(routesOf(options.providers, pprof));
  const { clock, log } = options;
  const shared = { component: 'admin', handler, clock, log };
  const v4 = undo.use(await HttpServer.listen({ ...shared, host: '127.0.0.1', port: options.port }));
  if (options.isIpv6Enabled) undo.use(await HttpServer.listen({ ...shared, host: '::1', port: v4.port }));
  const held = undo.move();
  return { port: v4.port, [Symbol.asyncDispose]: () => held.disposeAsync() };
}

function adminHandler(routes: ReadonlyMap<string, Route>): HttpHandler {
  return async (request) => {
    const route = routes.get(request.path);
    const refusal = refusalOf(request, route?.isStateChanging ?? false);
    if (refusal !== undefined) return { status: 403, type: 'text/plain', body: `${refusal}\n` };
    return route === undefined ? { status: 404 } : await route.answer(request);
  };
}

function routesOf(providers: AdminProviders, pprof: PprofEndpoints): ReadonlyMap<string, Route> {
  const reading = (answer: HttpHandler): Route => ({ isStateChanging: false, answer });
  const changing = (answer: HttpHandler): Route => ({ isStateChanging: true, answer });
  return new Map<string, Route>([
    ['/', reading(() => ({ status: 200, type: 'text/html; charset=utf-8', body: DASHBOARD }))],
    ['/config_dump', reading((request) => configDump(request, providers))],
    ['/logging', changing((request) => answerLogging(request, providers.logging))],
    ['/quitquitquit', changing((request) => quit(request, providers))],
    ['/debug/pprof/profile', changing((request) => pprof.cpu(request))],
    ['/debug/pprof/heap', reading((request) => pprof.heap(request))],
    ['/debug/pprof/heap/profiling', changing((request) => pprof.heapProfiling(request))],
    ['/status', reading((request) => onlyGet(request, async () => json(await providers.status())))],
    ['/certificates', reading((request) => onlyGet(request, () => json(providers.certificates())))],
    ['/connections', reading((request) => onlyGet(request, async () => json(await providers.connections())))],
    ['/usage', reading((request) => onlyGet(request, async () => json(await providers.usage())))],
    ['/explain', reading((request) => onlyGet(request, () => explain(request, providers)))],
  ]);
}

/** `?section=policies&section=services` asks for these alone: all of a large mesh is tens of MiB. The reference knows no such thing. */
async function configDump({ query }: HttpRequest, providers: AdminProviders): Promise<HttpAnswer> {
  const dump = new Map<string, unknown>(Object.entries(await providers.configDump()));
  const wanted = query.getAll('section');
  const unknown = wanted.find((section) => !dump.has(section));
  if (unknown !== undefined) {
    const error = `there is no section ${JSON.stringify(unknown)}; use ${[...dump.keys()].join(', ')}`;
    return { ...json({ error }), status: 400 };
  }
  const sections = wanted.length === 0 ? [...dump.keys()] : wanted;
  return json(Object.fromEntries(sections.map((section) => [section, dump.get(section)])), { isSorted: true });
}

async function quit({ method }: HttpRequest, providers: AdminProviders): Promise<HttpAnswer> {
  if (method !== 'POST') return { status: 405 };
  await providers.quit();
  return { status: 200, type: 'text/plain', body: 'shutdown now\n' };
}

async function explain({ query }: HttpRequest, providers: AdminProviders): Promise<HttpAnswer> {
  const id = query.get('id') ?? '';
  if (id === '') return { ...json({ error: 'name a connection: /explain?id=<connection id>' }), status: 400 };
  const connection = await providers.findConnection(id);
  if (connection === undefined)
    return { ...json({ error: 'no connection with this id is open or among the last 1024' }), status: 404 };
  const { reason: code } = connection;
  const view: ExplainView = code === undefined ? { connection } : { connection, reason: { code, ...reasonOf(code) } };
  return json(view);
}

function onlyGet(
  request: HttpRequest,
  answer: () => HttpAnswer | Promise<HttpAnswer>,
): HttpAnswer | Promise<HttpAnswer> {
  return request.method === 'GET' || request.method === 'HEAD' ? answer() : { status: 405 };
}

function json(value: unknown, form: JsonForm = { isSorted: false }): HttpAnswer {
  return { status: 200, type: 'application/json', pieces: jsonPieces(value, form) };
}
