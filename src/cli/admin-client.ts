/** Asks the admin port of an agent. */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { InvalidArgumentError } from 'commander';
import { messageOf } from '../base/errors.ts';
import { PORTS } from '../model/ports.ts';
import { http } from '../sys/http.ts';
import { CliError, EXIT_FAILURE, EXIT_UNAVAILABLE } from './exit-codes.ts';

export const DEFAULT_ADMIN = `127.0.0.1:${PORTS.admin}`;

export interface AdminAddress {
  readonly host: string;
  readonly port: number;
}

export interface AdminReply {
  readonly status: number;
  readonly text: string;
}

/** The agent answers at once or not at all. */
const TIMEOUT_MS = 5_000;
/** A dump of 200,000 workloads is about 150 MB; more is not an agent. */
const MAX_REPLY_BYTES = 1024 * 1_048_576;

/** `127.0.0.1:15000`, `[::1]:15000` or `node-7:15000`. */
export function parseAdminAddress(text: string): AdminAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port < 1 || port > 65_535) {
    throw new InvalidArgumentError('It must be host:port, for example 127.0.0.1:15000 or [::1]:15000.');
  }
  return { host, port };
}

/** The JSON of `path`. */
export async function getJson(address: AdminAddress, path: string): Promise<unknown> {
  const { status, text } = await request(address, 'GET', path);
  if (status !== 200) throw unexpected(address, path, { status, text });
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CliError(EXIT_FAILURE, `${nameOf(address)} did not answer ${path} with JSON; is it a Culvert agent?`, {
      cause: error,
    });
  }
}

export async function request(address: AdminAddress, method: 'GET' | 'POST', path: string): Promise<AdminReply> {
  try {
    return await exchange(address, method, path);
  } catch (error) {
    throw error instanceof CliError ? error : unreachable(address, error);
  }
}

export function unexpected(address: AdminAddress, path: string, { status, text }: AdminReply): CliError {
  const line = text.split('\n', 1)[0] ?? '';
  // What has no such path says nothing more.
  const cure = status === 404 ? '; is it the admin port of a Culvert agent?' : '';
  return new CliError(
    EXIT_FAILURE,
    `${nameOf(address)} answered ${path} with ${status}${line === '' ? cure : `: ${line}`}`,
  );
}

/** The agent accepts loopback host names only, whatever name led here (for example a port-forward on another machine). */
async function exchange({ host, port }: AdminAddress, method: string, path: string): Promise<AdminReply> {
  const outgoing = http.request({ host, port, path, method, headers: { host: 'localhost' }, timeout: TIMEOUT_MS });
  outgoing.once('timeout', () => outgoing.destroy(new Error(`no answer in ${TIMEOUT_MS / 1_000} s`)));
  outgoing.end();
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    const piece = chunk as Buffer;
    bytes += piece.length;
    if (bytes > MAX_REPLY_BYTES) throw new CliError(EXIT_FAILURE, 'the answer is larger than 1 GiB');
    chunks.push(piece);
  }
  return { status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() };
}

function unreachable(address: AdminAddress, cause: unknown): CliError {
  return new CliError(
    EXIT_UNAVAILABLE,
    `cannot reach an agent at ${nameOf(address)}: ${causeText(cause)}
  - is the agent running here? Start it with: culvert agent
  - does it use another admin port? Name it with: --admin <host:port>
  - is it in another network namespace? Run this command there: nsenter --net=<path> culvert …
  - is it a pod? Forward the port first: kubectl port-forward <agent pod> 15000`,
    { cause },
  );
}

/** A name with several addresses fails with one error per address and an empty message of its own. */
function causeText(cause: unknown): string {
  if (cause instanceof AggregateError) return cause.errors.map(messageOf).join('; ');
  return messageOf(cause);
}

function nameOf({ host, port }: AdminAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
