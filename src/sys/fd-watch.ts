/**
 * Waits until a descriptor that Node has no class for can be read or written: libuv's own `uv_poll` (docs.libuv.org), whose
 * functions Node exports for native add-ons, on the loop of the main thread. No thread of its own, nothing to do while idle.
 */
import { addAbortListener } from 'node:events';
import { getSystemErrorName } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';
import { MeshError } from '../base/errors.ts';

const UV_POLL = 8;
const UV_READABLE = 1;
const UV_WRITABLE = 2;

export type Readiness = 'readable' | 'writable';

const EVENT = { readable: UV_READABLE, writable: UV_WRITABLE } as const satisfies Record<Readiness, number>;

/** One waiter for each kind of readiness. The descriptor stays its owner's, who closes it after the watch. */
export class FdWatch implements Disposable {
  readonly #handle: bigint;
  readonly #waiters = new Map<Readiness, () => void>();
  #isOpen = true;

  /** Throws `CV-SYS` for what cannot be waited for: a file, a descriptor watched already. */
  constructor(fd: number) {
    this.#handle = openHandle(fd, () => this.#wake());
  }

  /**
   * Resolves, in a later turn of the loop, when `fd` may be read or written or has failed, and when the watch is disposed;
   * sometimes too early. So: try, and wait again. Rejects with the reason of `signal` when that aborts.
   */
  async wait(readiness: Readiness, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (!this.#isOpen) return;
    if (this.#waiters.has(readiness)) throw new MeshError('CV-BUG', 'two wait for the same descriptor', { readiness });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiters.set(readiness, resolve);
    using _abort = signal === undefined ? undefined : addAbortListener(signal, () => resolve());
    this.#watch();
    await promise;
    this.#waiters.delete(readiness);
    if (this.#isOpen) this.#watch();
    signal?.throwIfAborted();
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeHandle(this.#handle);
    this.#wake();
  }

  /** Both kinds wake: who finds nothing to do waits again. */
  #wake(): void {
    for (const wake of this.#waiters.values()) wake();
  }

  #watch(): void {
    const { uv, onEvents } = loop();
    const events = [...this.#waiters.keys()].reduce((mask, readiness) => mask | EVENT[readiness], 0);
    if (events === 0) uv.pollStop(this.#handle);
    else check(uv.pollStart(this.#handle, events, onEvents), 'uv_poll_start');
  }
}

/** Who is told of the events of a handle; until libuv has let go of it. */
const handles = new Map<bigint, () => void>();

function openHandle(fd: number, wake: () => void): bigint {
  const { uv, main } = loop();
  // Not the garbage collector's memory: libuv keeps the address.
  const handle = koffi.alloc('uint8_t', uv.handleSize(UV_POLL));
  const status = uv.pollInit(main, handle, fd);
  if (status !== 0) koffi.free(handle);
  check(status, 'uv_poll_init');
  handles.set(handle, wake);
  return handle;
}

function closeHandle(handle: bigint): void {
  const { uv, onClosed } = loop();
  uv.close(handle, onClosed);
}

type Loop = ReturnType<typeof openLoop>;

let opened: Loop | undefined;

function loop(): Loop {
  opened ??= openLoop();
  return opened;
}

function openLoop() {
  // Workers have loops of their own, which nothing exported leads to.
  if (!isMainThread) throw new MeshError('CV-SYS', 'only the main thread can wait for a descriptor');
  const uv = bindLibuv();
  const onEvents = koffi.register((handle: bigint) => {
    // libuv called us outside of any JavaScript: a turn of the loop has its microtasks and its error handling.
    setImmediate(() => handles.get(handle)?.());
  }, 'CulvertPollCallback *');
  const onClosed = koffi.register((handle: bigint) => {
    handles.delete(handle);
    koffi.free(handle);
  }, 'CulvertCloseCallback *');
  return { uv, main: uv.defaultLoop(), onEvents, onClosed };
}

function bindLibuv() {
  const program = koffi.load(null);
  koffi.proto('void CulvertPollCallback(void *handle, int status, int events)');
  koffi.proto('void CulvertCloseCallback(void *handle)');
  return {
    defaultLoop: program.func('void *uv_default_loop()') as () => bigint,
    handleSize: program.func('size_t uv_handle_size(int type)') as (type: number) => number,
    close: program.func('void uv_close(void *handle, CulvertCloseCallback *callback)') as (
      handle: bigint,
      callback: bigint,
    ) => void,
    pollInit: program.func('int uv_poll_init(void *loop, void *handle, int fd)') as (
      main: bigint,
      handle: bigint,
      fd: number,
    ) => number,
    pollStart: program.func('int uv_poll_start(void *handle, int events, CulvertPollCallback *callback)') as (
      handle: bigint,
      events: number,
      callback: bigint,
    ) => number,
    pollStop: program.func('int uv_poll_stop(void *handle)') as (handle: bigint) => number,
  };
}

function check(status: number, call: string): void {
  if (status < 0) throw new MeshError('CV-SYS', `${call} failed with ${getSystemErrorName(status)}`, { call });
}
