// Sets everything up, then runs the pinned Node 26: `node scripts/run.mjs [--for=demo|test|tools|generate] <node arguments>`.
// Plain JavaScript without dependencies: it is the one file that runs on the machine's own Node (20 or newer).
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import path from 'node:path';
import { ensureTools } from './setup/debian.mjs';
import { withSetupLock } from './setup/lock.mjs';
import { ensureLintTools, ensurePackages, pinnedNode } from './setup/packages.mjs';

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..');

/** @returns {{ purpose: string, nodeArgs: string[] }} */
function parseArgs(argv) {
  const first = argv[0] ?? '';
  const purpose = first.startsWith('--for=') ? first.slice('--for='.length) : 'start';
  return { purpose, nodeArgs: first.startsWith('--for=') ? argv.slice(1) : argv };
}

async function setUp(purpose) {
  await withSetupLock(root, async () => {
    await ensurePackages(root);
    await ensureTools(root, purpose);
    if (purpose === 'tools' || purpose === 'generate') await ensureLintTools(root);
  });
}

/**
 * Signals that reach only us are passed on. A Ctrl-C on a terminal reaches the child by itself: the whole foreground
 * group gets it, and a second copy would look like an impatient second Ctrl-C.
 */
function passSignals(child) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']) {
    const isFromTerminal = signal === 'SIGINT' && process.stdin.isTTY === true;
    process.on(signal, () => {
      if (!isFromTerminal) child.kill(signal);
    });
  }
}

function runPinnedNode(nodeArgs) {
  const env = {
    // Stripped and compiled sources are kept: every later start costs a third of the CPU.
    NODE_COMPILE_CACHE: path.join(root, 'node_modules/.cache/culvert/compiled'),
    ...process.env,
    PATH: [path.join(root, 'node_modules/.cache/culvert/bin'), process.env.PATH ?? '', '/usr/sbin', '/sbin'].join(':'),
    OXLINT_TSGOLINT_PATH: path.join(root, 'scripts/tools/node_modules/.bin/tsgolint'),
  };
  const child = spawn(pinnedNode(root), nodeArgs, { stdio: 'inherit', cwd: process.cwd(), env });
  passSignals(child);
  child.on('error', (error) => fail(error));
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
  });
}

function fail(error) {
  process.stderr.write(`set-up failed: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

const { purpose, nodeArgs } = parseArgs(process.argv.slice(2));
setUp(purpose).then(() => runPinnedNode(nodeArgs), fail);
