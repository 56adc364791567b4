/** `npm run bench:state`: the mesh state of a big cluster in one agent; how much it weighs and how fast it decides. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Noise } from '../noise.ts';
import { FULL_SIZE, type MeshSize, QUICK_SIZE } from './big-mesh.ts';
import type { Figures, Task } from './figures.ts';
import { renderFigures, rowsOf } from './table.ts';

const HELP = `npm run bench:state -- [options]

Pushes a mesh of ${sizeText(FULL_SIZE)} into the verdict authority of one node, in a process of its own, and measures
it there. Takes about half a minute. Needs no root.

  --quick             ${sizeText(QUICK_SIZE)}: for a first look
  --output json       print the figures as JSON instead of the table
  --help
`;

function sizeText({ workloads, services, policies }: MeshSize): string {
  const [w, s, p] = [workloads, services, policies].map((count) => count.toLocaleString('en'));
  return `${w} workloads, ${s} services and ${p} policies`;
}

async function measured(task: Task): Promise<Figures> {
  const subject = fork(fileURLToPath(new URL('subject.ts', import.meta.url)), { stdio: 'inherit' });
  subject.send(task);
  const [first] = (await Promise.race([once(subject, 'message'), once(subject, 'exit')])) as [Figures | number];
  if (typeof first !== 'object') throw new Error(`the measured process ended with code ${first}`);
  return first;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      output: { type: 'string', default: 'table' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (values.output !== 'table' && values.output !== 'json') throw new Error('--output: table or json');
  const size = values.quick ? QUICK_SIZE : FULL_SIZE;
  const noise = new Noise();
  const figures = await measured({ size });
  const othersShare = noise.othersShare();
  if (values.output === 'json') {
    process.stdout.write(`${JSON.stringify({ size, othersShare, rows: rowsOf(figures) }, undefined, 2)}\n`);
    return;
  }
  const busy = `${(othersShare * 100).toFixed(0)} % of the machine used by others`;
  process.stdout.write(`${sizeText(size)}; Node ${process.version}; ${busy}\n\n${renderFigures(figures)}\n`);
}

await main();
