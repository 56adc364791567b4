/** The Dockerfile can be built from this tree, and its runtime stage carries what the program needs. No Docker is used. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const stages = readFileSync('Dockerfile', 'utf8')
  .replaceAll(/\\\n/g, ' ')
  .split(/^FROM /m)
  .slice(1);
const [build = '', runtime = ''] = stages;

function copiedSources(stage: string): string[] {
  return [...stage.matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap(([, words = '']) => words.split(' ').slice(0, -1));
}

function isInContext(source: string): boolean {
  const allowed = readFileSync('.dockerignore', 'utf8').split('\n');
  return allowed.includes(`!${path.normalize(source)}`);
}

test('everything the Dockerfile copies exists and is sent to the builder', () => {
  const sources = stages.flatMap(copiedSources);
  assert(sources.length > 0);
  for (const source of sources) assert(existsSync(source) && isInContext(source), source);
});

test('the build stage puts everything the runtime stage takes into /out', () => {
  const taken = [...runtime.matchAll(/^COPY --from=build \/out\/(\S+)/gm)].map(([, name = '']) => name);
  assert.deepEqual(taken.sort(), ['bin/node', 'dist', 'node_modules', 'package.json']);
  for (const name of taken) assert(build.includes(path.basename(name)), name);
});

test('the image starts the entry point that the build emits', () => {
  const { bin } = JSON.parse(readFileSync('package.json', 'utf8')) as { readonly bin: { readonly culvert: string } };
  assert(runtime.includes(`/opt/culvert/${bin.culvert}`));
});

test('`culvert` is a command in the image, so that an operator can type it in kubectl exec', () => {
  assert.match(runtime, /^RUN ln -s \/opt\/culvert\/dist\/cli\/main\.js \/usr\/local\/bin\/culvert$/m);
  assert(readFileSync('src/cli/main.ts', 'utf8').startsWith('#!/usr/bin/env node\n'));
});

test('the runtime stage has the tools of the agent and no package manager of npm or compiler', () => {
  const installed = /apt-get install -y --no-install-recommends ([^&]+)/.exec(runtime)?.[1]?.trim().split(/\s+/);
  assert.deepEqual(installed, ['nftables', 'iproute2', 'iptables', 'libatomic1', 'ca-certificates']);
  assert(!/\bnpm\b/.test(runtime.replace(/^#.*$/gm, '')));
});

test('the program starts in /, where the relative paths of Istio begin, and takes the arguments of its chart', () => {
  assert.deepEqual(/^WORKDIR (.+)$/m.exec(runtime)?.[1], '/');
  const entry = JSON.parse(/^ENTRYPOINT (.+)$/m.exec(runtime)?.[1] ?? '[]') as string[];
  assert.deepEqual(entry, ['/usr/local/bin/node', '/opt/culvert/dist/cli/main.js']);
});
