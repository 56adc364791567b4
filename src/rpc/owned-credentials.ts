/**
 * Credentials whose connections end with their channel. A subchannel of grpc-js that waits to try again when its channel is
 * closed tries all the same, and then holds a connection that nobody owns, for as long as the server lets it.
 */
import { ChannelCredentials } from '@grpc/grpc-js';

type MakeConnector = ChannelCredentials['_createSecureConnector'];

export class OwnedCredentials extends ChannelCredentials {
  readonly #inner: ChannelCredentials;

  constructor(inner: ChannelCredentials) {
    super();
    this.#inner = inner;
  }

  override _isSecure(): boolean {
    return this.#inner._isSecure();
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(...how: Parameters<MakeConnector>): ReturnType<MakeConnector> {
    const connector = this.#inner._createSecureConnector(...how);
    let isOver = false;
    return {
      connect: (socket) => connector.connect(socket),
      // Asked before each dial.
      waitForReady: async () => {
        if (isOver) throw new Error('the channel is closed');
        await connector.waitForReady();
      },
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => {
        isOver = true;
        connector.destroy();
      },
    };
  }
}
