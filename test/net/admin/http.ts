/** A plain HTTP client for the tests: `fetch` will not send HEAD bodies, odd Hosts or raw bytes. */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';

export interface Reply {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly bytes: Buffer;
  readonly text: string;
}

export interface Ask {
  readonly method?: string;
  readonly headers?: http.OutgoingHttpHeaders;
  readonly host?: string;
  /** Keeps connections; without one each request has its own. */
  readonly agent?: http.Agent;
}

export async function ask(
  port: number,
  path: string,
  { method = 'GET', headers = {}, host, agent }: Ask = {},
): Promise<Reply> {
  const request = http.request({ port, path, method, headers, host: host ?? '127.0.0.1', agent: agent ?? false });
  request.end();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const bytes = Buffer.concat(await response.toArray());
  return { status: response.statusCode ?? 0, headers: response.headers, bytes, text: bytes.toString() };
}

/** Sends `bytes` and resolves with everything that came back until the server closed. */
export async function askRaw(port: number, bytes: string): Promise<string> {
  const socket = net.connect({ port, host: '127.0.0.1' });
  socket.write(bytes);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  await once(socket, 'close');
  return Buffer.concat(chunks).toString();
}
