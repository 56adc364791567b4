/** `npm run bench:state`: the mesh state of a big cluster in one agent; how much it weighs and how fast it decides. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Noise } from '../noise.ts';
import { FULL_SIZE, type MeshSize, QUICK_SIZE } from './big-mesh.ts';
import type { ControlPlaneAddress, Figures, Task } from './figures.ts';
import { renderFigures, rowsOf } from './table.ts';

const HELP = `npm run bench:state -- [options]

Pushes a mesh of ${sizeText(FULL_SIZE)} into the verdict authority of one node, in a process of its own, and measures
it there. Takes about half a minute. Needs no root.

  --source S          ads: from a delta ADS server in another process (default); direct: records made in place
  --quick             ${sizeText(QUICK_SIZE)}: for a first look
  --output json       print the figures as JSON instead of the table
  --help
`;

type Source = 'ads' | 'direct';

function isSource(text: string): text is Source {
  return text === 'ads' || text === 'direct';
}

function sizeText({ workloads, services, policies }: MeshSize): string {
  const [w, s, p] = [workloads, services, policies].map((count) => count.toLocaleString('en'));
  return `${w} workloads, ${s} services and ${p} policies`;
}

/** A child that is given one message and answers with one. */
async function asked<Answer>(child: ChildProcess, message: Task | MeshSize): Promise<Answer> {
  child.send(message);
  const [answer] = (await Promise.race([once(child, 'message'), once(child, 'exit')])) as [Answer | number];
  if (typeof answer === 'number') throw new Error(`a process of the bench ended with code ${answer}`);
  return answer;
}

function start(file: string): ChildProcess {
  return fork(fileURLToPath(new URL(file, import.meta.url)), { stdio: 'inherit' });
}

async function measured(size: MeshSize, source: Source): Promise<Figures> {
  if (source === 'direct') return await asked(start('subject.ts'), { size });
  const server = start('control-plane.ts');
  try {
    const controlPlane = await asked<ControlPlaneAddress>(server, size);
    return await asked(start('subject.ts'), { size, controlPlane });
  } finally {
    server.kill();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      source: { type: 'string', default: 'ads' },
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
  if (!isSource(values.source)) throw new Error('--source: ads or direct');
  const size = values.quick ? QUICK_SIZE : FULL_SIZE;
  const noise = new Noise();
  const figures = await measured(size, values.source);
  const othersShare = noise.othersShare();
  if (values.output === 'json') {
    process.stdout.write(
      `${JSON.stringify({ size, source: values.source, othersShare, rows: rowsOf(figures) }, undefined, 2)}\n`,
    );
    return;
  }
  const busy = `${(othersShare * 100).toFixed(0)} % of the machine used by others`;
  process.stdout.write(
    `${sizeText(size)}, ${values.source}; Node ${process.version}; ${busy}\n\n${renderFigures(figures)}\n`,
  );
}

await main();
