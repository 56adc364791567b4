import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { linuxSys } from '../../../src/sys/linux.ts';
import { MAIN } from '../../support/agent-process.ts';
import { meshForFile } from '../../support/mesh.ts';
import { ask, naming } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] } });

/** Starts an agent on n3 that must not start, and returns what it said. */
async function failedStart(flags: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const agent = mesh().spawnAgent('n3', flags, env);
  const code = await agent.exited;
  return { code, said: agent.stderr.join('\n') };
}

/** A copy of the mesh's CA, to be spoiled. */
function caCopy(name: string): string {
  const copy = join(mesh().lab.folder, name);
  cpSync(mesh().caFolder, copy, { recursive: true });
  return copy;
}

for (const [claim, spoil, says] of [
  [
    'a CA key that belongs to another certificate',
    (ca: string) => cpSync(join(ca, 'root/key.pem'), join(ca, 'issuing-1/key.pem')),
    [/issuing-1\/key\.pem: the key does not belong to .*issuing-1\/cert\.pem/, /restore both files/],
  ],
  [
    'a root certificate that another CA has signed',
    (ca: string) => cpSync(join(ca, 'issuing-1'), join(ca, 'root'), { recursive: true }),
    [/root\/cert\.pem: it is not signed by itself/, /restore it from a backup/],
  ],
  [
    'a CA certificate that is no certificate',
    (ca: string) => writeFileSync(join(ca, 'issuing-1/cert.pem'), 'nothing'),
    [/issuing-1\/cert\.pem: /, /restore it from a backup/],
  ],
  [
    'a CA key that is missing',
    (ca: string) => rmSync(join(ca, 'issuing-1/key.pem')),
    [/issuing-1\/cert\.pem: its key\.pem is missing/, /restore the key/],
  ],
  [
    'a CA file that cannot be read',
    (ca: string) => {
      rmSync(join(ca, 'root/cert.pem'));
      mkdirSync(join(ca, 'root/cert.pem'));
    },
    [/root\/cert\.pem: EISDIR/, /must be a file that the agent can read/],
  ],
] as const) {
  test(
    `${claim}: the agent does not start, names the file and the cure, and leaves the files alone`,
    privileged,
    async () => {
      const ca = caCopy(claim.replaceAll(/\W+/g, '-'));
      spoil(ca);
      const { code, said } = await failedStart(['--ca-dir', ca]);
      assert.equal(code, 1);
      assert.match(said, /CV-CA: cannot use /);
      for (const part of says) assert.match(said, part);
    },
  );
}

test(
  'CA files that are spoiled while the agent runs: the last good ones stay in use, with a warning',
  privileged,
  async () => {
    const agent = mesh().agent('n2');
    const mark = agent.lines.length;
    const key = join(mesh().caFolder, 'issuing-1');
    cpSync(key, `${key}.aside`, { recursive: true });
    writeFileSync(join(key, 'cert.pem'), 'nothing');
    const isWarning = (line: Readonly<Record<string, unknown>>): boolean =>
      line['message'] === 'CA files changed and cannot be used; the last good ones stay';
    const line = await agent.line(isWarning, 'warning about the CA', mark);
    assert.match(String(line['error']), /issuing-1\/cert\.pem: /);
    using _app = mesh().serve('server', 8080, naming('server'));
    assert.match(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8080 }), /^server/);
    cpSync(`${key}.aside`, key, { recursive: true });
    rmSync(`${key}.aside`, { recursive: true });
  },
);

test('a CA directory that cannot be made is named as the wrong setting that it is', privileged, async () => {
  const { code, said } = await failedStart(['--ca-dir', '/proc/culvert/ca']);
  assert.equal(code, 78);
  assert.match(said, /CV-CONFIG: --ca-dir \(CULVERT_CA_DIR\) must be a directory .*ENOENT.*\/proc\/culvert/);
});

test('without nft the agent does not start, and says which package has it', privileged, async () => {
  const folder = join(mesh().lab.folder, 'path-without-nft');
  mkdirSync(folder);
  const { code, said } = await failedStart([], { PATH: folder });
  assert.equal(code, 1);
  assert.match(said, /CV-SYS: nft is missing \(needed for: redirection rules in pods\): install the package nftables/);
});

test('told to stop while it starts, the agent ends at once and in order', privileged, async () => {
  const folder = join(mesh().lab.folder, 'path-with-a-slow-nft');
  mkdirSync(folder);
  // As long as the agent.
  writeFileSync(join(folder, 'nft'), '#!/bin/sh\nexec /usr/bin/tail --pid=$PPID -f /dev/null\n', { mode: 0o755 });
  const agent = mesh().spawnAgent('n3', [], { PATH: folder });
  await agent.line(({ message }) => message.startsWith('file descriptor limit'), 'start');
  process.kill(agent.pid, 'SIGTERM');
  assert.equal(await agent.exited, 0);
  assert.equal(agent.lines.at(-1)?.message, 'stopped before it had started');
});

test(
  'without capabilities the agent does not start, and names each of them with its use and the cure',
  privileged,
  async () => {
    const child = spawn(
      'setpriv',
      // Not another user: that one may be unable to read this checkout.
      ['--bounding-set=-all', '--inh-caps=-all', process.execPath, MAIN, 'agent', ...mesh().agentFlags('n3')],
      { stdio: ['ignore', 'ignore', 'pipe'], cwd: REPOSITORY, env: { ...process.env, NODE_OPTIONS: '' } },
    );
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number];
    assert.equal(code, 1);
    for (const capability of ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN']) {
      assert.match(said, new RegExp(`${capability} is missing \\(needed for: [^)]+\\): run as root`));
    }
  },
);

test('a second agent on a node is refused with the pid of the first, which goes on', privileged, async () => {
  const first = mesh().agent('n2');
  const second = mesh().spawnSecondAgent('n2');
  assert.equal(await second.exited, 1);
  const said = second.stderr.join('\n');
  assert.match(said, new RegExp(`CV-AGENT-RUNNING: the agent with pid ${first.pid} already serves this node`));
  assert.match(said, /stop it first, or give this one its own --run-dir/);
  using _app = mesh().serve('server', 8081, naming('server'));
  assert.match(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8081 }), /^server/);
});

for (const [name, port] of [
  ['admin', 15_000],
  ['stats', 15_020],
  ['readiness', 15_021],
] as const) {
  test(`the ${name} port taken on the node: the agent does not start and names the port`, privileged, async () => {
    const { fd } = mesh()
      .lab.node('n3')
      .inside.run(() => linuxSys.listenTcp(undefined, { address: '0.0.0.0', port }));
    try {
      const { code, said } = await failedStart([]);
      assert.equal(code, 1);
      assert.match(said, /CV-BIND/);
      assert.match(said, new RegExp(`\\b${port}\\b`));
      assert.match(said, /ss -ltnp/);
    } finally {
      linuxSys.close(fd);
    }
  });
}

test(
  'every wrong setting is named at once, and the exit code says that a restart will not help',
  privileged,
  async () => {
    const { code, said } = await failedStart(['--admin-port', '70000', '--drain', 'soon'], {
      KEEPALIVE_RETRIES: 'many',
      IPV6_ENABLED: 'perhaps',
    });
    assert.equal(code, 78);
    for (const setting of ['--admin-port', '--drain', 'KEEPALIVE_RETRIES', 'IPV6_ENABLED']) {
      assert.match(said, new RegExp(`culvert agent: ${setting} `));
    }
  },
);

/** What nobody foresees: a file that is always there cannot be read. */
const UNFORESEEN = `
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const { readFileSync } = fs;
  fs.readFileSync = (path, ...rest) => {
    if (path === '/proc/self/limits') throw new Error('a defect on purpose');
    return readFileSync(path, ...rest);
  };
  syncBuiltinESMExports();
`;

test('an error at start that nobody foresaw ends the agent, so that it is started again', privileged, async () => {
  const preload = `data:text/javascript,${encodeURIComponent(UNFORESEEN)}`;
  const { code, said } = await failedStart([], { NODE_OPTIONS: `--import=${preload}` });
  assert.equal(code, 1);
  assert.match(said, /defect, the agent ends: Error: a defect on purpose\nculvert agent: +at /);
});

test('a run directory that cannot be used is named', privileged, async () => {
  const file = join(mesh().lab.folder, 'a-file');
  writeFileSync(file, '');
  chmodSync(file, 0o600);
  const { code, said } = await failedStart(['--run-dir', file]);
  assert.equal(code, 1);
  assert.match(said, /CV-SYS: the run directory cannot be used: .*a-file/);
});
