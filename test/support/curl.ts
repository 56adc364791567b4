/** A curl that tunnels through an HTTP/2 proxy with a client certificate (8.10 or newer), as `npm test` provides it. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Unpacked here by `scripts/setup/curl.mjs`; otherwise the one on the path may do. */
const PRIVATE = fileURLToPath(new URL('../../node_modules/.cache/culvert/bin/curl', import.meta.url));

function isNewEnough(command: string): boolean {
  const [, major = '0', minor = '0'] = /^curl (\d+)\.(\d+)\./.exec(versionOf(command)) ?? [];
  return Number(major) > 8 || (Number(major) === 8 && Number(minor) >= 10);
}

function versionOf(command: string): string {
  return spawnSync(command, ['--version'], { encoding: 'utf8' }).stdout ?? '';
}

/** Path of such a curl; undefined when this machine has none. */
export const newCurl = [PRIVATE, 'curl'].find(isNewEnough);

/** Reason to skip; never in CI, where a missing curl is a failure. */
export const skipWithoutNewCurl =
  newCurl !== undefined || process.env['MESH_REQUIRE_ROOT'] === '1'
    ? false
    : 'needs curl 8.10 or newer; npm test fetches one from Debian backports';
