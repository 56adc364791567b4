import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HandOverLink } from '../../../../src/agent/hand-over/link.ts';
import type { FdMessage, UnixSocket } from '../../../../src/sys/unix-contract.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

for (const lost of ['data', 'descriptors'] as const) {
  test(`a message of which ${lost} are missing is never taken for a whole one`, async () => {
    let disposed = 0;
    const fds = { count: 0, take: () => undefined, [Symbol.dispose]: () => {} };
    const message: FdMessage = { data: Buffer.from('{}'), fds, lost, [Symbol.dispose]: () => void disposed++ };
    const socket: UnixSocket = {
      peer: { pid: 1, uid: 0, gid: 0 },
      receive: async () => message,
      send: async () => {},
      [Symbol.dispose]: () => {},
    };
    using link = new HandOverLink(socket, new FakeClock());

    await assert.rejects(link.receive(1_000), {
      code: 'CV-HAND-OVER',
      message: `a part of a message was lost: ${lost}`,
    });
    assert.equal(disposed, 1);
  });
}
