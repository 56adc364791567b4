/** Holds idle connections open while memory is read. */

import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Cleanup } from '../cleanup.ts';
import type { Address } from '../columns/column.ts';
import { type Daemon, type Place, startDaemon, stopDaemon, until } from '../command.ts';

const HOLDER = fileURLToPath(new URL('hold-idle.ts', import.meta.url));

export interface IdleLoad {
  readonly place: Place;
  readonly target: Address;
  readonly connections: number;
  readonly logPath: string;
}

/** Resolves when every connection has made its exchange; the caller ends them with `release`. */
export async function holdIdle(cleanup: Cleanup, load: IdleLoad): Promise<{ release(): Promise<void> }> {
  const { host, port } = load.target;
  rmSync(load.logPath, { force: true });
  const argv = [process.execPath, HOLDER, host, String(port), String(load.connections)];
  const holder: Daemon = startDaemon(cleanup, argv, { place: load.place, logPath: load.logPath });
  const areHeld = async (): Promise<void> => {
    if (!readFileSync(load.logPath, 'utf8').includes(`HELD ${load.connections}`)) throw new Error('not all are open');
  };
  await until(`${load.connections} idle connections`, [holder], areHeld, 60_000);
  return { release: () => stopDaemon(holder) };
}
