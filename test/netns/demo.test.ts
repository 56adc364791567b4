/** `culvert demo` as a person runs it: it observes all its claims, and leaves nothing behind however it ends. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { labFolder, netnsPrefix } from '../../src/cli/lab/registry.ts';
import { skipWithoutRoot } from '../support/netns.ts';

const options = { skip: skipWithoutRoot, timeout: 300_000 };
/** A demo that hangs is ended by SIGTERM, and then removes its lab. */
const LIMIT_MS = 240_000;
const DEMO = ['src/cli/main.ts', 'demo'];

interface DemoJson {
  readonly isGood: boolean;
  readonly durationMs: number;
  readonly steps: readonly { readonly id: string; readonly claims: readonly Claim[] }[];
  readonly accessLog: readonly string[];
  readonly counters: readonly unknown[];
  readonly labId?: string;
}

interface Claim {
  readonly text: string;
  readonly isObserved: boolean;
  readonly evidence: readonly string[];
}

function start(...args: string[]): ChildProcess {
  return spawn(process.execPath, [...DEMO, ...args], { stdio: ['ignore', 'pipe', 'inherit'], timeout: LIMIT_MS });
}

async function runToEnd(...args: string[]): Promise<{ readonly code: unknown; readonly stdout: string }> {
  const child = start(...args);
  assert(child.stdout !== null);
  const [stdout, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  return { code, stdout };
}

function namespacesOf(id: string): string[] {
  return readdirSync('/var/run/netns').filter((name) => name.startsWith(netnsPrefix(id)));
}

/** Tests beside this one make labs too; a lab says who owns it. */
function labOf(child: ChildProcess): string | undefined {
  const ids = readdirSync(path.dirname(labFolder('any')));
  return ids.find((id) => readFileSync(path.join(labFolder(id), 'owner'), 'utf8').startsWith(`${child.pid} `));
}

for (const family of ['ipv4', 'ipv6']) {
  test(`${family}: every claim of the demo is observed`, options, async () => {
    const { code, stdout } = await runToEnd('--output', 'json', '--family', family);
    const result = JSON.parse(stdout) as DemoJson;
    const missed = result.steps.flatMap((step) => step.claims.filter((claim) => !claim.isObserved));
    assert.deepEqual(missed, []);
    assert.equal(code, 0);
    assert.equal(result.isGood, true);
    assert.deepEqual(
      result.steps.map((step) => step.id),
      ['a', 'b', 'c', 'd', 'e', 'f'],
    );
    assert(result.accessLog.length > 0 && result.counters.length > 0);
  });
}

test('Ctrl-C in the middle ends the demo with 130 and removes its namespaces', options, async () => {
  const child = start();
  assert(child.stdout !== null);
  const lines = createInterface(child.stdout);
  for await (const line of lines) if (line.startsWith('(b)')) break;
  const id = labOf(child);
  assert(id !== undefined && namespacesOf(id).length > 0);
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'exit'), [130, null]);
  assert.deepEqual(namespacesOf(id), []);
  assert.equal(existsSync(labFolder(id)), false);
});

test('--keep leaves a working mesh up and says how to try and how to remove it', options, async () => {
  const { code, stdout } = await runToEnd('--keep', '--family', 'ipv4');
  const id = /netns\/cv([0-9a-f]{6})-shop/.exec(stdout)?.[1] ?? '';
  try {
    assert.equal(code, 0, stdout);
    assert(namespacesOf(id).length > 0);
    const tryIt = /^\s+(nsenter --net=\S+-shop .*?)\s+# allowed$/m.exec(stdout)?.[1] ?? 'false';
    const shell = spawn('sh', ['-c', tryIt], { stdio: ['ignore', 'pipe', 'inherit'] });
    assert.match(await text(shell.stdout), /"pod":"cart"/);
  } finally {
    await runToEnd('--clean', id);
  }
  assert.deepEqual(namespacesOf(id), []);
  assert.equal(existsSync(labFolder(id)), false);
});
