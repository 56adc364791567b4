import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const MODULE = fileURLToPath(new URL('../../../src/sys/descriptor-table.ts', import.meta.url));
const SCRIPT = `
import { readdirSync, readFileSync } from 'node:fs';
import { reserveDescriptors } from '${MODULE}';
const open = () => readdirSync('/proc/self/fd').length;
const before = open();
reserveDescriptors(1);
const [, size] = /^FDSize:\\s+(\\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'));
process.stdout.write(JSON.stringify({ size: Number(size), left: open() - before }));
`;

/** Runs where at most `limit` files may be open. */
async function reserve(limit: number): Promise<{ readonly size: number; readonly left: number }> {
  const command = `ulimit -n ${limit} && exec "$0" --input-type=module --eval "$1"`;
  const { stdout } = await promisify(execFile)('sh', ['-c', command, process.execPath, SCRIPT], { timeout: 60_000 });
  return JSON.parse(stdout) as { size: number; left: number };
}

for (const { limit, size } of [
  { limit: 5_000, size: 4_096 },
  { limit: 1_000, size: 512 },
  { limit: 200, size: 64 },
]) {
  test(`with ${limit} open files allowed the kernel has room for ${size} at least, and none is open`, async () => {
    const found = await reserve(limit);
    assert.ok(found.size >= size, `room for ${found.size}`);
    assert.equal(found.left, 0);
  });
}
