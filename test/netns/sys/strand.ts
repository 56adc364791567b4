/** Enters the namespace named last on the command line and loses the way back. */
import { readdirSync, readlinkSync } from 'node:fs';
import process from 'node:process';
import { libc } from '../../../src/sys/libc.ts';
import { inNetns, openNetns } from '../../../src/sys/netns.ts';

const own = readlinkSync('/proc/thread-self/ns/net');
const pod = openNetns(process.argv.at(-1) ?? '');
inNetns(pod, () => {
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) === own) libc.close(Number(fd));
    } catch {
      // It was the descriptor of the directory.
    }
  }
});
console.log('went on');
