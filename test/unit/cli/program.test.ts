import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { Command } from 'commander';
import { MeshError } from '../../../src/base/errors.ts';
import { reasonOf } from '../../../src/base/reasons.ts';
import { demoCommand } from '../../../src/cli/demo.ts';
import { run } from '../../../src/cli/program.ts';
import { releaseRules } from '../../../src/cli/sidecar.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { Sys } from '../../../src/sys/sys.ts';
import { LOG_SCOPES } from '../../../src/telemetry/log-filter.ts';
import { culvert, fakeAgent } from './cli-fixture.ts';

const usage: readonly { claim: string; argv: readonly string[]; err: RegExp }[] = [
  { claim: 'no command', argv: [], err: /^Usage: culvert / },
  {
    claim: 'an unknown command',
    argv: ['stauts'],
    err: /^culvert: unknown command 'stauts'\n\(Did you mean status\?\)\n {2}- see culvert --help\n$/,
  },
  {
    claim: 'help about an unknown command',
    argv: ['help', 'stauts'],
    err: /^culvert: unknown command 'stauts'\n\(Did/,
  },
  {
    claim: 'an unknown option',
    argv: ['status', '--adnim', 'x'],
    err: /^culvert: unknown option '--adnim'\n\(Did you mean --admin\?\)\n {2}- see culvert status --help\n$/,
  },
  { claim: 'an admin address without a port', argv: ['status', '--admin', 'node-1'], err: /It must be host:port/ },
  { claim: 'an admin port that is none', argv: ['status', '--admin', '[::1]:70000'], err: /It must be host:port/ },
  { claim: 'an unknown form', argv: ['status', '-o', 'xml'], err: /Allowed choices are table, short, json, yaml/ },
  { claim: 'an argument too many', argv: ['status', 'x'], err: /too many arguments/ },
  { claim: 'a log filter named twice', argv: ['log', 'info', '--level', 'warn'], err: /name the filter once/ },
  {
    claim: 'asking a dump for refused connections',
    argv: ['connections', '--refused', '--file', 'dump.json'],
    err: /a config_dump does not hold refused connections/,
  },
  { claim: 'explain without a subject', argv: ['explain'], err: /name a reason code or a connection id/ },
  { claim: 'explain with an empty subject', argv: ['explain', ''], err: /name a reason code or a connection id/ },
  { claim: 'an unknown reason code', argv: ['explain', 'cv-x'], err: /there is no reason code CV-X/ },
];

for (const { claim, argv, err } of usage) {
  test(`${claim} is wrong usage: exit code 2 and nothing on standard output`, async () => {
    const ran = await culvert(argv);
    assert.equal(ran.code, 2);
    assert.equal(ran.out, '');
    assert.match(ran.err, err);
  });
}

test('an agent that does not answer is exit code 69 with what to check', async () => {
  await using agent = await fakeAgent({});
  const { admin } = agent;
  await agent[Symbol.asyncDispose]();
  assert.deepEqual(await culvert(['status', '--admin', admin]), {
    code: 69,
    out: '',
    err: `culvert: cannot reach an agent at ${admin}: connect ECONNREFUSED ${admin}
  - is the agent running here? Start it with: culvert agent
  - does it use another admin port? Name it with: --admin <host:port>
  - is it in another network namespace? Run this command there: nsenter --net=<path> culvert …
  - is it a pod? Forward the port first: kubectl port-forward <agent pod> 15000
`,
  });
});

test('an answer that is no JSON is a failure that says so', async () => {
  await using agent = await fakeAgent({ '/status': '<html>' });
  const { code, err } = await agent.ask(['status']);
  assert.equal(code, 1);
  assert.match(err, /did not answer \/status with JSON; is it a Culvert agent\?/);
});

test('a port that is not the admin port is a failure that asks which it is', async () => {
  await using agent = await fakeAgent({});
  for (const [command, path] of [
    ['status', '/status'],
    ['all', '/config_dump'],
    ['connections', '/connections'],
    ['explain c-9', '/explain?id=c-9'],
    ['log', '/logging'],
  ] as const) {
    const { code, err } = await agent.ask(command.split(' '));
    const said = `${agent.admin} answered ${path} with 404; is it the admin port of a Culvert agent?`;
    assert.deepEqual([code, err], [1, `culvert: ${said}\n`]);
  }
});

test('help and version are not errors', async () => {
  for (const argv of [['--version'], ['version']]) {
    assert.deepEqual(await culvert(argv), { code: 0, out: '9.8.7\n', err: '' });
  }
  assert.match((await culvert(['help', 'svc'])).out, /^Usage: culvert services/);
  const { code, out, err } = await culvert(['--help']);
  assert.deepEqual([code, err], [0, '']);
  for (const command of [
    'status',
    'workloads',
    'services',
    'policies',
    'certificates',
    'connections',
    'all',
    'explain',
    'log',
  ]) {
    assert.match(out, new RegExp(`^  ${command}\\b`, 'm'));
    const help = await culvert([command, '--help']);
    assert.equal(help.code, 0);
    assert.match(help.out, new RegExp(`Examples:\n  \\$ culvert ${command}`));
  }
});

test('log shows, changes and resets the filter of the agent', async () => {
  await using agent = await fakeAgent({ '/logging': 'current log level is info\n' });
  for (const argv of [['log'], ['log', 'access=debug,info'], ['log', '--level', 'warn', '--reset'], ['o', '-r']]) {
    assert.deepEqual(await agent.ask(argv), { code: 0, out: 'current log level is info\n', err: '' });
  }
  assert.deepEqual(agent.asked, [
    'POST /logging',
    'POST /logging?level=access%3Ddebug%2Cinfo',
    'POST /logging?level=warn&reset=',
    'POST /logging?reset=',
  ]);
});

test('a level that the agent refuses is wrong usage', async () => {
  await using agent = await fakeAgent({ '/logging': 'Invalid level provided: loud\n\nusage' });
  assert.deepEqual(await agent.ask(['log', 'loud']), {
    code: 2,
    out: '',
    err: 'culvert: Invalid level provided: loud\n  - levels: off, error, warn, info, debug, trace; for one part: part=level\n',
  });
});

test('a part that nobody has is taken, as by ztunnel, and said', async () => {
  await using agent = await fakeAgent({ '/logging': 'current log level is info\n' });
  const { code, err } = await agent.ask(['log', 'acess=debug, proxy:trace,ztunnel::proxy=info,inpod=warn,error']);
  assert.equal(code, 0);
  assert.equal(err, `culvert: no part is called acess; parts: ${LOG_SCOPES.join(', ')}\n`);
});

test('a disk that is full is said in one line', () => {
  const full = openSync('/dev/full', 'w');
  const { status, stderr } = spawnSync(process.execPath, ['src/cli/main.ts', 'explain', '--list'], {
    stdio: ['ignore', full, 'pipe'],
    encoding: 'utf8',
    timeout: 60_000,
  });
  closeSync(full);
  assert.equal(stderr, 'culvert: cannot write to standard output: ENOSPC: no space left on device, write\n');
  assert.equal(status, 1);
});

test('a release where the machine itself is is refused, and touches nothing', async () => {
  const tools: unknown[] = [];
  const runInNetns: Sys['runInNetns'] = async (_netns, argv) => {
    tools.push(argv);
    return { code: 0, stdout: '', stderr: '' };
  };
  const sys: Sys = { ...linuxSys, isMachineNetns: () => true, runInNetns };
  await assert.rejects(releaseRules(sys), {
    exitCode: 2,
    message: /network namespace of the machine.*\n.*ip netns exec/,
  });
  assert.deepEqual(tools, []);
});

test('a reader that goes away ends the program quietly', async () => {
  const child = spawn(process.execPath, ['src/cli/main.ts', 'explain', '--list', '-o', 'json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  child.stdout.destroy();
  const [code] = await once(child, 'close');
  assert.equal(complaint, '');
  assert.equal(code, 0);
});

test('an error of the mesh is said with its code and what to do next', async () => {
  let err = '';
  const terminal = { env: {}, isTty: false, out: () => {}, err: (text: string) => void (err += text), nowMs: () => 0 };
  const release = new Command('release').action(() => {
    throw new MeshError('CV-SYS', 'nft could not be run');
  });
  assert.equal(await run(['release'], { version: '1', terminal, roles: () => Promise.resolve([release]) }), 1);
  assert.equal(err, `culvert: CV-SYS: nft could not be run\n  - ${reasonOf('CV-SYS').next}\n`);
});

test('the help of the demo has all its exit codes', () => {
  let help = '';
  demoCommand()
    .configureOutput({ writeOut: (text) => (help += text) })
    .outputHelp();
  assert.match(help, /^Exit codes: 0 .+, 1 .+, 2 .+, 77 it needs root\.$/m);
});

test('the help of log names the parts that speak', async () => {
  const { out } = await culvert(['log', '--help']);
  assert.equal(/^Parts: (.+)\.$/m.exec(out)?.[1], LOG_SCOPES.join(', '));
});

test('wrong settings are said in the name of the command that was typed', async () => {
  const child = spawn(process.execPath, ['src/cli/main.ts', 'sidecar'], { env: {}, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const [code] = await once(child, 'close');
  assert.equal(code, 78);
  for (const line of said.trimEnd().split('\n')) assert.match(line, /^culvert sidecar: /);
});
