/**
 * What a server accepts, as Node's handle and before Node makes a socket of it. Node offers no other way to choose what kind of
 * socket that is.
 */
import type net from 'node:net';
import { getSystemErrorName } from 'node:util';

/** Nothing is changed where a later Node has other insides, or handles that `isUsable` does not know. */
export function takeHandles<Handle>(
  server: net.Server,
  onHandle: (handle: Handle) => void,
  isUsable: (listener: Handle) => boolean = () => true,
): void {
  const { _handle: listener } = server as unknown as { _handle?: (Handle & { onconnection?: unknown }) | null };
  if (typeof listener?.onconnection !== 'function' || !isUsable(listener)) return;
  listener.onconnection = (error: number | undefined, handle: Handle): void => {
    if (error === 0 || error === undefined) onHandle(handle);
    else server.emit('error', new Error(`accept failed with ${getSystemErrorName(error)}`));
  };
}
