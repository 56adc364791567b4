// npm packages exactly as the lock says, installed when missing or when the lock changed, and the pinned Node among them.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run } from './process.mjs';

/** Holds the hash of the lock that `node_modules` was installed from. */
const STAMP = '.culvert-installed';

export function pinnedNode(root) {
  return path.join(root, 'node_modules', `node-linux-${process.arch}`, 'bin/node');
}

/** `ci` wants the lock to name every package for every platform; a registry may lack some of those of the lint tools. */
const AS_LOCKED = ['ci'];
const AS_LOCKED_WHERE_LOCKED = ['install', '--no-save'];
/** Install scripts are not run: koffi ships its binaries prebuilt, and nothing else has any. */
const QUIET = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
const ERROR_LINES = 20;

async function install(folder, command) {
  process.stderr.write(`set-up: npm ${command[0]} in ${folder}\n`);
  const { code, output } = await run('npm', [...command, ...QUIET], { cwd: folder });
  if (code === 0) return;
  const start = output.split('\n').slice(0, ERROR_LINES).join('\n');
  throw new Error(`npm ${command.join(' ')} failed in ${folder}:\n${start}`);
}

async function ensure(folder, command) {
  const stamp = path.join(folder, 'node_modules', STAMP);
  const lock = readFileSync(path.join(folder, 'package-lock.json'));
  const wanted = createHash('sha256').update(lock).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  await install(folder, command);
  writeFileSync(stamp, wanted);
}

export async function ensurePackages(root) {
  await ensure(root, AS_LOCKED);
  if (!existsSync(pinnedNode(root))) {
    throw new Error(`no pinned Node for ${process.platform} ${process.arch}: Culvert runs on Linux, x64 or arm64`);
  }
}

/** Biome, oxlint and knip. */
export async function ensureLintTools(root) {
  await ensure(path.join(root, 'scripts/tools'), AS_LOCKED_WHERE_LOCKED);
}
