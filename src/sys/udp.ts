/** Node datagram sockets on descriptors made in a network namespace. */
import dgram from 'node:dgram';
import { MeshError, messageOf } from '../base/errors.ts';
import type { Sys } from './sys.ts';

/** Takes over a descriptor of `Sys.socketUdp`, also on failure. Errors cannot end the process even when nobody listens. */
export function datagramSocket(sys: Pick<Sys, 'close'>, fd: number, family: 4 | 6): dgram.Socket {
  const socket = dgram.createSocket(family === 4 ? 'udp4' : 'udp6').on('error', ignore);
  try {
    return socket.bind({ fd });
  } catch (error) {
    socket.close();
    sys.close(fd);
    throw new MeshError('CV-SYS', `the datagram socket cannot be used: ${messageOf(error)}`, {}, { cause: error });
  }
}

function ignore(): void {}
