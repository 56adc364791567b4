import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { skipWithoutRoot, TestNetns } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 90_000 };

interface Ending {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a piece of code of its own process; `sys/` is imported relative to the root of the repository. */
async function run(code: string, args: readonly string[], prefix: readonly string[] = []): Promise<Ending> {
  const [file = '', ...rest] = [...prefix, process.execPath, '--input-type=module', '-e', code, ...args];
  const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  const [[exitCode, signal], stdout, stderr] = await Promise.all([
    once(child, 'exit') as Promise<[number | null, string | null]>,
    text(child.stdout),
    text(child.stderr),
  ]);
  return { code: exitCode, signal, stdout, stderr };
}

const STRAND = new URL('./strand.ts', import.meta.url).href;
const STRANDED = [
  ['a thread', `await import('${STRAND}');`],
  [
    'a worker thread',
    `
      import { Worker } from 'node:worker_threads';
      new Worker(new URL('${STRAND}'), { argv: [process.argv[1]], execArgv: [] });
    `,
  ],
] as const;

for (const [who, code] of STRANDED) {
  test(`${who} that cannot return to its own namespace ends the process and says why`, privileged, async () => {
    await using pod = await TestNetns.create();
    const { signal, stdout, stderr } = await run(code, [pod.path]);
    assert.equal(signal, 'SIGABRT', stderr);
    assert.equal(stdout, '');
    assert.match(stderr, new RegExp(`setns back from ${pod.path} failed with EBADF`));
  });
}

const REFUSED = `
  import { readdirSync } from 'node:fs';
  import { linuxSys } from './src/sys/linux.ts';
  const codes = new Set();
  const attempt = (call) => {
    try {
      call();
    } catch (error) {
      codes.add(error.code + ' ' + error.fields.call + ' ' + error.fields.errno);
    }
  };
  using pod = linuxSys.openNetns(process.argv[1]);
  attempt(() => linuxSys.listenTcp(pod, { address: '::', port: 0 }));
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 50; i++) {
    attempt(() => linuxSys.listenTcp(pod, { address: '::', port: 0 }));
    attempt(() => linuxSys.socketTcp(undefined, { family: 4, mark: 1 }));
    attempt(() => linuxSys.socketUdp(undefined, { address: '127.0.0.1', port: 0, mark: 1 }));
    attempt(() => linuxSys.scratchNetns());
  }
  console.log(readdirSync('/proc/self/fd').length - before, [...codes].sort().join(', '));
`;
const UNPRIVILEGED = ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all', '--no-new-privs', '--'];

test(
  'without capabilities every call is refused by name and errno, and leaves no descriptor open',
  privileged,
  async () => {
    await using pod = await TestNetns.create();
    const { stdout, stderr } = await run(REFUSED, [pod.path], UNPRIVILEGED);
    assert.equal(stderr, '');
    assert.equal(stdout.trim(), '0 CV-NETNS setns EPERM, CV-NETNS unshare EPERM, CV-SYS setsockopt(SO_MARK) EPERM');
  },
);

const CHECK = `
  import { linuxSys } from './src/sys/linux.ts';
  import { selfCheck } from './src/sys/self-check.ts';
  const findings = await selfCheck(linuxSys);
  console.log(findings.filter(({ ok }) => !ok).map(({ name }) => name).join(' '));
`;

test(
  'the self-check names exactly what is missing without capabilities, and nothing with them',
  privileged,
  async () => {
    const without = await run(CHECK, [], UNPRIVILEGED);
    assert.equal(without.stdout.trim(), 'CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN', without.stderr);
    const all = await run(CHECK, []);
    assert.equal(all.stdout.trim(), '', all.stderr);
  },
);
