/** Emits `dist/`: the sources as JavaScript, for the package and the image. */
import { spawnSync } from 'node:child_process';
import { chmodSync, rmSync } from 'node:fs';

rmSync('dist', { recursive: true, force: true });
const arguments_ = ['node_modules/typescript/bin/tsc', '-p', 'scripts/config/build.json'];
const { status } = spawnSync(process.execPath, arguments_, { stdio: 'inherit' });
if (status === 0) chmodSync('dist/cli/main.js', 0o755);
process.exitCode = status ?? 1;
