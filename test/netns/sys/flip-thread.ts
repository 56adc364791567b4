/** A thread that makes sockets in several namespaces in turn, and looks where it is. */

import { readlinkSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { linuxSys } from '../../../src/sys/linux.ts';
import { inNetns, useOwnNetnsFd } from '../../../src/sys/netns.ts';
import type { Netns } from '../../../src/sys/sys.ts';

export interface FlipTask {
  readonly ownFd: number;
  readonly netns: readonly Pick<Netns, 'fd' | 'path' | 'id'>[];
  readonly flips: number;
}

export interface FlipResult {
  /** Inodes of the namespaces it was in. */
  readonly places: readonly string[];
  /** Whether it was in its own one between all turns. */
  readonly isHome: boolean;
}

const OWN = '/proc/thread-self/ns/net';
const { ownFd, netns, flips } = workerData as FlipTask;
useOwnNetnsFd(ownFd);
const home = readlinkSync(OWN);
const places = new Set<string>();
let isHome = true;
for (let turn = 0; turn < flips; turn++) {
  const place = netns[turn % netns.length];
  if (place === undefined) break;
  const borrowed = { ...place, [Symbol.dispose](): void {} };
  linuxSys.close(linuxSys.listenTcp(borrowed, { address: '127.0.0.1', port: 0 }).fd);
  places.add(inNetns(borrowed, () => /\d+/.exec(readlinkSync(OWN))?.[0] ?? ''));
  isHome &&= readlinkSync(OWN) === home;
}
parentPort?.postMessage({ places: [...places], isHome } satisfies FlipResult);
