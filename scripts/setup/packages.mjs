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

/** Install scripts are not run: koffi ships its binaries prebuilt, and nothing else has any. */
export async function ensurePackages(root, folder) {
  const stamp = path.join(folder, 'node_modules', STAMP);
  const wanted = createHash('sha256')
    .update(readFileSync(path.join(folder, 'package-lock.json')))
    .digest('hex');
  const isCurrent = existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted;
  if (!isCurrent) {
    process.stderr.write(`set-up: npm ci in ${path.relative(root, folder) || '.'}\n`);
    const result = await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: folder,
    });
    if (result.code !== 0) throw new Error(`npm ci failed in ${folder}:\n${result.output}`);
    writeFileSync(stamp, wanted);
  }
  if (!existsSync(pinnedNode(root))) {
    throw new Error(`no pinned Node for ${process.platform} ${process.arch}: Culvert runs on Linux, x64 or arm64`);
  }
}
