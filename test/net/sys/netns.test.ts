import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { openNetns } from '../../../src/sys/netns.ts';
import { socketTcp } from '../../../src/sys/sockets.ts';

const OWN = '/proc/thread-self/ns/net';

test('a namespace that was closed is not entered through the descriptor that took its number', () => {
  const gone = openNetns(OWN);
  const number = gone.fd;
  gone[Symbol.dispose]();
  using other = openNetns(OWN);
  assert.equal(other.fd, number, 'the number was not used again, so this test shows nothing');

  assert.throws(
    () => socketTcp(gone, { family: 4 }),
    (error) => error instanceof MeshError && error.code === 'CV-NETNS',
  );
});

test('without descriptors a namespace is not taken for one without IPv6', { timeout: 90_000 }, () => {
  // In a process of its own, with a limit of its own.
  const program = `
    import { openSync } from 'node:fs';
    import { linuxSys } from '${new URL('../../../src/sys/linux.ts', import.meta.url).href}';
    try { for (;;) openSync('/dev/null', 'r'); } catch {}
    for (const ask of [() => linuxSys.hasIpv6(undefined, 'lo'), () => linuxSys.procNet(undefined, 'if_inet6')]) {
      try { console.log(ask()); } catch (error) { console.log(error.code, error.message.split(':')[0]); }
    }
  `;
  const shell = `ulimit -n 64; exec "${process.execPath}" --input-type=module-typescript -e "$PROGRAM"`;
  const { stdout } = spawnSync('sh', ['-c', shell], {
    env: { ...process.env, PROGRAM: program },
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(stdout, 'CV-SYS EMFILE\nCV-SYS EMFILE\n');
});
