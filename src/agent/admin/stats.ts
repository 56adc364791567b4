/** The scrape endpoint. */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { type HttpHandler, type HttpRequest, HttpServer } from './http-server.ts';
import { SharedText } from './shared-text.ts';

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
  readonly clock: Clock;
  readonly log: Logger;
}

/** `/metrics` and `/stats/prometheus`, any method; the body is OpenMetrics whatever was asked for. */
export async function startStatsServer({ metrics, ...rest }: StatsServerOptions): Promise<HttpServer> {
  const texts = new SharedText(async () => new Exposition(await metrics.render()), rest.clock);
  const handler: HttpHandler = async (request) => {
    if (!PATHS.has(request.path)) return { status: 404 };
    const encoding = bestEncoding(request.headers('accept-encoding'));
    const headers = { vary: 'accept-encoding', ...(encoding && { 'content-encoding': encoding }) };
    return { status: 200, type: contentType(request), headers, body: await (await texts.get()).as(encoding) };
  };
  return await HttpServer.listen({ ...rest, component: 'stats', handler });
}

/** One rendering in the forms that were asked for, each made once. */
class Exposition {
  readonly #bytes: Buffer;
  readonly #packed = new Map<Encoding, Promise<Buffer>>();

  constructor(text: string) {
    this.#bytes = Buffer.from(text);
  }

  async as(encoding: Encoding | undefined): Promise<Buffer> {
    if (encoding === undefined) return this.#bytes;
    const packed = this.#packed.get(encoding) ?? COMPRESSORS[encoding](this.#bytes);
    this.#packed.set(encoding, packed);
    return await packed;
  }
}

function contentType(request: HttpRequest): string {
  const accepted = request.headers('accept').flatMap((value) => value.split(','));
  const isOpenMetrics = accepted.some((item) => item.split(';')[0]?.trim().toLowerCase() === OPENMETRICS);
  return isOpenMetrics ? OPENMETRICS_TYPE : 'text/plain; charset=utf-8';
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
