/** Makes `src/wire/pb/*_pb.ts` from the `.proto` files beside them: `npm run generate`. The result is checked in. */
import { spawnSync } from 'node:child_process';
import { globSync, rmSync } from 'node:fs';

const FOLDER = 'src/wire/pb';
const PLUGIN = 'scripts/tools/node_modules/.bin/protoc-gen-es';

for (const file of globSync(`${FOLDER}/*_pb.ts`)) rmSync(file);
const options = ['target=ts', 'import_extension=ts', 'erasable_syntax=true'];
const args = [
  `--plugin=protoc-gen-es=${PLUGIN}`,
  `--es_out=${FOLDER}`,
  `--es_opt=${options.join(',')}`,
  `--proto_path=${FOLDER}`,
  ...globSync('*.proto', { cwd: FOLDER }),
];
const { status } = spawnSync('protoc', args, { stdio: 'inherit' });
process.exitCode = status ?? 1;
