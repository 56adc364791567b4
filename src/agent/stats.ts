/** The scrape endpoint (facts/operations.md §2.1, §5.8). */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { Logger } from '../base/log.ts';
import { type HttpAnswer, type HttpHandler, type HttpRequest, HttpServer } from './http-server.ts';

const PATHS: ReadonlySet<string> = new Set(['/metrics', '/stats/prometheus']);
const OPENMETRICS = 'application/openmetrics-text';
const OPENMETRICS_TYPE = `${OPENMETRICS};charset=utf-8;version=1.0.0`;

/** Fast settings: a scrape happens every few seconds, and the text shrinks twentyfold at any level. */
const COMPRESSORS = {
  zstd: promisify(zlib.zstdCompress),
  gzip: promisify(zlib.gzip),
  br: (body: Buffer) => promisify(zlib.brotliCompress)(body, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } }),
  deflate: promisify(zlib.deflate),
} as const satisfies Record<string, (body: Buffer) => Promise<Buffer>>;

type Encoding = keyof typeof COMPRESSORS;

export interface StatsServerOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: { render(): Promise<string> };
  readonly log: Logger;
}

/** `/metrics` and `/stats/prometheus`, any method; the body is OpenMetrics whatever was asked for. */
export async function startStatsServer({ metrics, ...rest }: StatsServerOptions): Promise<HttpServer> {
  const handler: HttpHandler = async (request) => {
    if (!PATHS.has(request.path)) return { status: 404 };
    return await compressed(request, { status: 200, type: contentType(request), body: await metrics.render() });
  };
  return await HttpServer.listen({ ...rest, component: 'stats', handler });
}

function contentType(request: HttpRequest): string {
  const accepted = request.headers('accept').flatMap((value) => value.split(','));
  const isOpenMetrics = accepted.some((item) => item.split(';')[0]?.trim().toLowerCase() === OPENMETRICS);
  return isOpenMetrics ? OPENMETRICS_TYPE : 'text/plain; charset=utf-8';
}

async function compressed(request: HttpRequest, answer: HttpAnswer & { readonly body: string }): Promise<HttpAnswer> {
  const vary = { vary: 'accept-encoding' };
  const encoding = bestEncoding(request.headers('accept-encoding'));
  if (encoding === undefined) return { ...answer, headers: vary };
  const body = await COMPRESSORS[encoding](Buffer.from(answer.body));
  return { ...answer, headers: { ...vary, 'content-encoding': encoding }, body };
}

/** The accepted encoding with the highest weight; of equals the one we like best. */
function bestEncoding(values: readonly string[]): Encoding | undefined {
  const weights = new Map<string, number>();
  for (const item of values.flatMap((value) => value.split(','))) {
    const [name = '', ...parameters] = item.split(';').map((part) => part.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2);
    weights.set(name, weight === undefined ? 1 : Number(weight));
  }
  let best: Encoding | undefined;
  for (const name of ['zstd', 'gzip', 'br', 'deflate'] as const) {
    const weight = weights.get(name) ?? weights.get('*') ?? 0;
    if (weight > 0 && (best === undefined || weight > (weights.get(best) ?? 0))) best = name;
  }
  return best;
}
