/**
 * Double HBONE: a CONNECT stream to the gateway of another network, and inside it TLS, HTTP/2 and CONNECT once more, with
 * whoever serves there. One inner tunnel per connection: the gateway balances streams, not requests.
 */
import type { Duplex } from 'node:stream';
import { connectTls, provedIdentity } from '../identity/tls-handshake.ts';
import { baggageLabels, identityLabels } from '../model/labels.ts';
import type { OutboundVerdict, PeerLabels } from '../model/verdict.ts';
import { H2Session } from '../tunnel/h2-session.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import { duplexOf } from '../tunnel/stream-duplex.ts';
import { parseBaggage } from '../wire/baggage.ts';
import { answerOf, type ConnectHeaders, connectHeaders, openStream, type TunnelPool } from './connect.ts';
import { HANDSHAKE_END_MS, type PodContext } from './pod-context.ts';

type DoubleVerdict = Extract<OutboundVerdict, { kind: 'double-hbone' }>;

export interface FarStream {
  readonly stream: H2Stream;
  /** Who serves: proved by the inner certificate, described by the inner answer. */
  readonly destination: PeerLabels;
}

/** Rejects with a `MeshError` and leaves nothing open. */
export async function openDoubleStream(
  context: PodContext,
  pool: TunnelPool,
  verdict: DoubleVerdict,
): Promise<FarStream> {
  const headers = connectHeaders(context, verdict);
  const { stream } = await openStream(context, pool, verdict, headers);
  const transport = duplexOf(stream);
  try {
    return await openInner(context, transport, verdict, headers);
  } catch (error) {
    transport.destroy();
    throw error;
  }
}

async function openInner(
  context: PodContext,
  transport: Duplex,
  verdict: DoubleVerdict,
  headers: ConnectHeaders,
): Promise<FarStream> {
  const { deps, settings } = context;
  const { contexts, clock } = deps;
  const expected = verdict.innerExpectedIdentities;
  const material = await deps.verdicts.certificate(verdict.identity);
  await context.handshakeTurn();
  const secured = await connectTls(transport, material, expected, {
    contexts,
    clock,
    timeoutMs: settings.dialHandshakeTimeoutMs,
    revocation: deps.revocation,
  });
  context.share.enter(HANDSHAKE_END_MS);
  const identity = provedIdentity(secured, expected);
  const session: H2Session = new H2Session({
    socket: secured,
    role: 'client',
    settings: settings.http2Client,
    clock,
    share: context.share,
    handlers: {
      onIdle: () => session.destroy(),
      onClose: (error) => {
        if (error === undefined) return;
        const fields = { authority: verdict.authority, reason: error.code, error: error.message };
        deps.log.debug?.('inner tunnel closed', fields);
      },
    },
  });
  const stream = session.request({
    authority: verdict.authority,
    headers: { ...headers, 'x-forwarded-network': verdict.forwardedNetwork },
  });
  deps.revocation?.watch(secured, (error) => session.destroy(error));
  const answer = await answerOf(context, stream);
  const baggage = parseBaggage(answer.headers.get('baggage') ?? []);
  return { stream, destination: baggage ? baggageLabels(baggage, identity) : identityLabels(identity) };
}
