import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Netns, Sys } from '../../../src/sys/sys.ts';

const POD: Netns = { path: '/run/pod', fd: 3, id: { device: 1n, inode: 1n }, [Symbol.dispose]: () => {} };
const OPTIONS = { ipv4: true, ipv6: false, isIngressMode: false, rerouteInterfaces: [], dnsCapture: false };

test('an nft that was updated under the agent costs one repair, not one at every look', async () => {
  let version = 1;
  let loads = 0;
  const sys: Sys = {
    ...linuxSys,
    scratchNetns: () => ({ ...POD, path: 'scratch' }),
    policyRouteState: () => ({ hasRule: true, hasRoute: true }),
    addPolicyRoute: () => {},
    runInNetns: async (netns, argv) => {
      if (argv.includes('-f') && netns === POD) loads += 1;
      const listing = `table inet istio-ambient-nat {\n\tas nft ${version} prints it\n}\n`;
      return { code: 0, stdout: argv.includes('list') ? listing : '', stderr: '' };
    },
  };
  const redirection = createRedirection(sys);
  const look = async (): Promise<readonly string[]> => {
    const differences = await redirection.verify(POD, OPTIONS);
    if (differences.length > 0) await redirection.apply(POD, OPTIONS);
    return differences;
  };
  assert.deepEqual(await look(), []);

  version = 2;
  assert.deepEqual(await look(), ['nft rules were changed']);
  assert.deepEqual(await look(), []);
  assert.equal(loads, 1);
});
