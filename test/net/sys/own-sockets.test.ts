import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { linuxSys } from '../../../src/sys/linux.ts';
import { tcpPair } from '../../support/tcp.ts';

const LISTEN = `
  const server = require('net').createServer().listen(0, '127.0.0.1', () => console.log(server.address().port));
`;

test('sockets of this process are told from those of others', { timeout: 90_000 }, async () => {
  await using pair = await tcpPair();
  const child = spawn(process.execPath, ['-e', LISTEN], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [theirs] = (await once(createInterface(child.stdout), 'line')) as [string];

    const own = linuxSys.ownSocketInodes();
    const sockets = linuxSys.tcpSockets(undefined);

    const isOwn = (port: number | undefined): boolean | undefined => {
      const found = sockets.find(({ local }) => local.port === port);
      return found && own.has(found.inode);
    };
    assert.deepEqual([pair.near.localPort, pair.far.localPort, Number(theirs)].map(isOwn), [true, true, false]);
  } finally {
    child.kill();
    await once(child, 'exit');
  }
});
