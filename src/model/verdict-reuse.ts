/**
 * Which questions have the same verdict, and what of a verdict belongs to one connection only: the port of its client.
 * Nothing else of a question may decide and be missing from its key.
 */
import { formatForwarded, parseForwardedHost } from '../wire/forwarded.ts';
import type { InboundQuestion, InboundVerdict, OutboundQuestion, OutboundVerdict } from './verdict.ts';

export function outboundKey({ client, ...question }: OutboundQuestion): string {
  return JSON.stringify([client.ip, question]);
}

/** Of the `forwarded` header only the host decides; its `for` names the client's port. */
export function inboundKey({ peer, hbone, ...question }: InboundQuestion): string {
  const anyConnection = { ...question, connectionId: '' };
  if (hbone === undefined) return JSON.stringify([peer.ip, anyConnection]);
  const { forwarded, ...request } = hbone;
  const host = forwarded === undefined ? undefined : parseForwardedHost(forwarded);
  return JSON.stringify([peer.ip, anyConnection, request, host]);
}

/** A verdict on a connection with the same key, for this one. */
export function outboundFor(verdict: OutboundVerdict, { client }: OutboundQuestion): OutboundVerdict {
  if (!('forwarded' in verdict)) return verdict;
  return { ...verdict, forwarded: formatForwarded(client, parseForwardedHost(verdict.forwarded)) };
}

/** A verdict on a connection with the same key, for this one. */
export function inboundFor(verdict: InboundVerdict, { peer }: InboundQuestion): InboundVerdict {
  if (verdict.kind === 'refuse' || verdict.proxyHeader === undefined) return verdict;
  return { ...verdict, proxyHeader: { ...verdict.proxyHeader, source: peer } };
}
