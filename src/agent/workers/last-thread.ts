/**
 * A worker of the greedy lane: it gives way before each module that it loads, as it will between pieces of work. Otherwise it would
 * keep a CPU for a tick of the kernel now and then while it begins, which is when a pod is attacked.
 */
import { registerHooks } from 'node:module';
import { lastLoopTime } from '../../sys/loop-time.ts';

const hooks = registerHooks({
  load: (url, context, next) => {
    lastLoopTime.giveWay?.();
    return next(url, context);
  },
});
await import('./worker-thread.ts');
hooks.deregister();
