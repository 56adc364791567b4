import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type net from 'node:net';
import { test } from 'node:test';
import { readToEnd } from '../../support/tcp.ts';

const source = (file: string): string => new URL(`../../../src/sys/${file}`, import.meta.url).href;

/** Connects to itself: the client has its descriptor, and what is accepted finds none. */
const SCRIPT = `
  import { once } from 'node:events';
  import { closeSync, openSync } from 'node:fs';
  import net from 'node:net';
  import { descriptorShortage } from '${source('descriptor-table.ts')}';
  import { linuxSys } from '${source('linux.ts')}';
  import { localAddress } from '${source('sockets.ts')}';
  import { listenOn } from '${source('tcp.ts')}';

  const heard = [];
  const { fd } = linuxSys.listenTcp(undefined, { address: '127.0.0.1', port: 0 });
  const { port } = localAddress(fd);
  listenOn(fd, { onConnection: () => heard.push('connection'), onError: () => heard.push('error') });
  const before = descriptorShortage();
  const client = net.connect({ host: '127.0.0.1', port }).on('error', () => {});
  // The dial is made in the next tick, and nobody looks at sockets before the next turn.
  await new Promise((resolve) => process.nextTick(() => process.nextTick(resolve)));
  const held = [];
  try { for (;;) held.push(openSync('/dev/null', 'r')); } catch {}
  const { message } = descriptorShortage();
  await once(client.resume(), 'close');
  for (const one of held) closeSync(one);
  console.log(before, heard, message, descriptorShortage());
  process.exit();
`;

test('a client without a descriptor is closed and nobody hears of it, but that there is none can be seen', async () => {
  const run = `ulimit -n 64; exec "${process.execPath}" --input-type=module-typescript -e "$SCRIPT"`;
  const child = spawn('sh', ['-c', run], { env: { ...process.env, SCRIPT }, stdio: ['ignore', 'pipe', 'inherit'] });
  assert.equal(
    await readToEnd(child.stdout as net.Socket),
    'undefined [] socket failed with EMFILE; raise the limit of open files (ulimit -n) undefined\n',
  );
});
