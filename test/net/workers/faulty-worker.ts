/** A worker that can be told to fail. */
import '../../support/fault-preload.ts';
import '../../../src/agent/workers/worker-thread.ts';
