/**
 * The application in every pod of the demo: `pod-app.ts <name> <port> [--stay]`. It knows nothing of the mesh.
 *
 * Serves HTTP: `/ticks` answers with a line every 100 ms for ever, anything else with who asked, as this pod saw it.
 * Sends requests as told by JSON lines on stdin (`AppOrder`), and answers with JSON lines on stdout (`AppEvent`).
 */
import { createInterface } from 'node:readline';
import { http } from '../../sys/http.ts';

export interface AppOrder {
  readonly id: number;
  /** `get` reads one answer; `hold` keeps the answer open and tells when it is cut. */
  readonly order: 'get' | 'hold';
  readonly url: string;
}

export type AppEvent =
  | { readonly event: 'ready' }
  | { readonly event: 'answer'; readonly id: number; readonly body: string }
  | { readonly event: 'failed'; readonly id: number; readonly error: string }
  | { readonly event: 'held'; readonly id: number }
  | { readonly event: 'cut'; readonly id: number; readonly error: string };

/** What a pod tells whoever asks. */
export interface AppAnswer {
  readonly pod: string;
  readonly pid: number;
  /** Address of the peer of the TCP connection. */
  readonly client: string;
}

const TICK_MS = 100;
const REQUEST_TIMEOUT_MS = 5_000;

function tell(event: AppEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function serve(pod: string, port: number): void {
  const server = http.createServer((request, response) => {
    const client = (request.socket.remoteAddress ?? '').replace('::ffff:', '');
    if (request.url !== '/ticks') return void response.end(JSON.stringify({ pod, pid: process.pid, client }));
    const timer = setInterval(() => response.write('tick\n'), TICK_MS);
    response.on('close', () => clearInterval(timer));
  });
  server.keepAliveTimeout = 1;
  server.listen(port, () => tell({ event: 'ready' }));
}

function get({ id, url }: AppOrder): void {
  const request = http.get(url, { agent: false, timeout: REQUEST_TIMEOUT_MS }, (response) => {
    let body = '';
    response.on('data', (chunk: Buffer) => (body += chunk.toString()));
    response.on('end', () => tell({ event: 'answer', id, body }));
  });
  request.on('timeout', () => request.destroy(new Error('no answer in time')));
  request.on('error', (error) => tell({ event: 'failed', id, error: reasonOf(error) }));
}

function hold({ id, url }: AppOrder): void {
  const request = http.get(url, { agent: false }, (response) => {
    response.once('data', () => tell({ event: 'held', id }));
    response.on('end', () => tell({ event: 'cut', id, error: 'end of stream' }));
    response.on('error', (error) => tell({ event: 'cut', id, error: reasonOf(error) }));
  });
  request.on('error', (error) => tell({ event: 'failed', id, error: reasonOf(error) }));
}

function reasonOf(error: NodeJS.ErrnoException): string {
  return error.code ?? error.message;
}

const [name = '', port = '', stay] = process.argv.slice(2);
serve(name, Number(port));
const orders = createInterface(process.stdin);
orders.on('line', (line) => {
  const order = JSON.parse(line) as AppOrder;
  if (order.order === 'get') get(order);
  else hold(order);
});
// Its owner is gone. A demo that is to stay up says so.
orders.on('close', () => stay === '--stay' || process.exit(0));
// With --stay the pipe to the owner may break later; there is nobody to tell.
process.stdout.on('error', () => {});
