/** Keeps an agent that was replaced within its memory bound: connections on which nothing moved for longest end first. */
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { DataPlane, DataPlaneViews } from '../data-plane.ts';

/** How often memory is looked at. */
const LOOK_MS = 5_000;
/** Of the connections, ended at one look that is over the bound. */
const SHARE = 1 / 8;

export interface HoldMemoryDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly dataPlane: Pick<DataPlane, 'shed' | 'trim'> & { readonly views: Pick<DataPlaneViews, 'totals'> };
  /** Resident memory of this process. */
  readonly rssBytes: () => number;
}

/** Until disposed. */
export function boundHoldMemory(maxBytes: number, deps: HoldMemoryDeps): Disposable {
  const { clock, log, dataPlane, rssBytes } = deps;
  let timer: Disposable | undefined;
  let isOver = false;
  const look = async (): Promise<void> => {
    if (rssBytes() > maxBytes) await dataPlane.trim();
    // What is left now is needed: garbage weighs on nobody.
    const { live } = dataPlane.views.totals();
    const rss = rssBytes();
    if (rss <= maxBytes || live === 0) return;
    const ended = await dataPlane.shed(Math.ceil(live * SHARE));
    log.warn?.('over the memory bound of held connections: idle ones are ended', {
      reason: 'CV-HOLD',
      rssBytes: rss,
      maxBytes,
      ended,
      left: live - ended,
    });
  };
  const lookLater = (): void => {
    timer = clock.after(LOOK_MS, () => {
      look()
        .catch((error: unknown) => log.error?.('memory of held connections not bounded', { error: messageOf(error) }))
        .finally(() => {
          if (!isOver) lookLater();
        });
    });
  };
  lookLater();
  return {
    [Symbol.dispose]: () => {
      isOver = true;
      timer?.[Symbol.dispose]();
    },
  };
}
