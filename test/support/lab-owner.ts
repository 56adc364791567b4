/** Makes a lab, prints its id, waits for a line on stdin, and ends as told: `lab-owner.ts wait|exit|throw|keep`. */
import { once } from 'node:events';
import { createLab } from '../../src/cli/lab/lab.ts';

const lab = await createLab({ nodes: [{ name: 'node', pods: ['pod'] }], family: 'ipv4' });
console.log(lab.id);
await once(process.stdin, 'data');
if (process.argv[2] === 'keep') lab.keep();
if (process.argv[2] === 'throw') throw new Error('as told');
if (process.argv[2] !== 'wait') process.exit(0);
