import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

/** A folder may import folders of a lower rank and itself. Equal rank means siblings: they meet in `agent/`, not in imports. */
const RANK: Readonly<Record<string, number>> = {
  base: 0,
  wire: 1,
  model: 2,
  sys: 3,
  rpc: 3,
  telemetry: 3,
  identity: 4,
  tunnel: 4,
  xds: 4,
  proxy: 5,
  waypoint: 5,
  capture: 5,
  control: 5,
  agent: 6,
  cli: 7,
};
const LAST_PURE_RANK = 2;
/** Packages without I/O that pure folders may use: the runtime of the generated protobuf code, and the reader of DNS messages. */
const PURE_PACKAGE = /^(@bufbuild\/protobuf|dns-packet)(\/|$)/;

for (const file of globSync('src/**/*.ts')) {
  const folder = file.split('/')[1] ?? '';
  const rank = RANK[folder];

  test(`${file} imports only what lies below it`, () => {
    assert(rank !== undefined, `folder ${folder} has no rank`);
    for (const [, target = ''] of readFileSync(file, 'utf8').matchAll(/(?:from|import)\s+'([^']+)'/g)) {
      if (!target.startsWith('.')) {
        assert(rank > LAST_PURE_RANK || PURE_PACKAGE.test(target), `${target}: ${folder}/ is pure, no I/O`);
        continue;
      }
      const other = new URL(target, `file:///${file}`).pathname.split('/')[2] ?? '';
      assert(other === folder || (RANK[other] ?? Infinity) < rank, `${target}: ${folder}/ may not import ${other}/`);
    }
  });
}
