/** Dialling one HBONE tunnel: TCP from the pod's netns, mutual TLS, HTTP/2. */
import { connectTls } from '../identity/tls-handshake.ts';
import type { TunnelKey } from '../tunnel/client-pool.ts';
import { H2Session } from '../tunnel/h2-session.ts';
import { HANDSHAKE_END_MS, type PodContext } from './pod-context.ts';

export interface ConnectRequest {
  readonly authority: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface TunnelHandlers {
  /** Called once when the returned session is gone. */
  readonly onClosed: () => void;
  /** The peer takes no new streams in it. Called once, too. */
  readonly onGoaway: () => void;
}

/** Rejects with a `MeshError` and leaves nothing open. */
export async function dialTunnel(
  context: PodContext,
  key: TunnelKey,
  { onClosed, onGoaway }: TunnelHandlers,
): Promise<H2Session> {
  const { settings, deps } = context;
  const material = await deps.verdicts.certificate(key.identity);
  const socket = await context.dialTunnel(key.address);
  try {
    await context.handshakeTurn();
  } catch (error) {
    socket.destroy();
    throw error;
  }
  const secured = await connectTls(socket, material, key.expectedIdentities, {
    contexts: deps.contexts,
    clock: deps.clock,
    timeoutMs: settings.dialHandshakeTimeoutMs,
    revocation: deps.revocation,
  });
  context.share.enter(HANDSHAKE_END_MS);
  let isLeft = false;
  const session = new H2Session({
    socket: secured,
    role: 'client',
    settings: settings.http2Client,
    clock: deps.clock,
    share: context.share,
    handlers: {
      onGoaway: () => {
        if (isLeft) return;
        isLeft = true;
        onGoaway();
      },
      onClose: (error) => {
        if (error !== undefined) {
          deps.log.debug?.('tunnel closed', { peer: key.address.ip, reason: error.code, error: error.message });
        }
        onClosed();
      },
    },
  });
  deps.revocation?.watch(secured, (error) => session.destroy(error));
  return session;
}
