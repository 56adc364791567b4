/** The C library calls that Node does not offer, bound through koffi. Nothing here decides anything. */
import { getSystemErrorName } from 'node:util';
import koffi from 'koffi';
import { type ErrorFields, MeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';

type Bytes = Uint8Array;

// The program itself, not a file name: finds glibc or musl, whichever Node was linked with.
const program = koffi.load(null);

export const libc = {
  sched_yield: program.func('int sched_yield()') as () => number,
  open: program.func('int open(const char *path, int flags)') as (path: string, flags: number) => number,
  close: program.func('int close(int fd)') as (fd: number) => number,
  setns: program.func('int setns(int fd, int nstype)') as (fd: number, nstype: number) => number,
  unshare: program.func('int unshare(int flags)') as (flags: number) => number,
  socket: program.func('int socket(int domain, int type, int protocol)') as (
    domain: number,
    type: number,
    protocol: number,
  ) => number,
  socketpair: program.func('int socketpair(int domain, int type, int protocol, void *fds)') as (
    domain: number,
    type: number,
    protocol: number,
    fds: Int32Array,
  ) => number,
  bind: program.func('int bind(int fd, const void *address, uint32_t length)') as (
    fd: number,
    address: Bytes,
    length: number,
  ) => number,
  listen: program.func('int listen(int fd, int backlog)') as (fd: number, backlog: number) => number,
  connect: program.func('int connect(int fd, const void *address, uint32_t length)') as (
    fd: number,
    address: Bytes,
    length: number,
  ) => number,
  accept4: program.func('int accept4(int fd, void *address, void *length, int flags)') as (
    fd: number,
    address: null,
    length: null,
    flags: number,
  ) => number,
  sendmsg: program.func('long sendmsg(int fd, const void *message, int flags)') as (
    fd: number,
    message: Bytes,
    flags: number,
  ) => number,
  recvmsg: program.func('long recvmsg(int fd, void *message, int flags)') as (
    fd: number,
    message: Bytes,
    flags: number,
  ) => number,
  setsockopt: program.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)') as (
    fd: number,
    level: number,
    name: number,
    value: Bytes | Int32Array,
    length: number,
  ) => number,
  getsockopt: program.func('int getsockopt(int fd, int level, int name, void *value, void *length)') as (
    fd: number,
    level: number,
    name: number,
    value: Bytes | Int32Array,
    length: Uint32Array,
  ) => number,
  getsockname: program.func('int getsockname(int fd, void *address, void *length)') as (
    fd: number,
    address: Bytes,
    length: Uint32Array,
  ) => number,
  send: program.func('long send(int fd, const void *data, size_t length, int flags)') as (
    fd: number,
    data: Bytes,
    length: number,
    flags: number,
  ) => number,
  recv: program.func('long recv(int fd, void *data, size_t length, int flags)') as (
    fd: number,
    data: Bytes,
    length: number,
    flags: number,
  ) => number,
  poll: program.func('int poll(void *fds, unsigned long count, int timeoutMs)') as (
    fds: Int32Array,
    count: number,
    timeoutMs: number,
  ) => number,
  /** Offsets are null: neither end has one. */
  splice: program.func(
    'long splice(int from, void *fromOffset, int to, void *toOffset, size_t length, uint32_t flags)',
  ) as (from: number, fromOffset: null, to: number, toOffset: null, length: number, flags: number) => number,
  pipe2: program.func('int pipe2(void *fds, int flags)') as (fds: Int32Array, flags: number) => number,
  read: program.func('long read(int fd, void *data, size_t length)') as (
    fd: number,
    data: Bytes,
    length: number,
  ) => number,
  ioctl: program.func('int ioctl(int fd, unsigned long request)') as (fd: number, request: number) => number,
  fcntl: program.func('int fcntl(int fd, int command, ...)') as (
    fd: number,
    command: number,
    type: 'int',
    argument: number,
  ) => number,
  flock: program.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number,
  /** For calls that it has no function for. */
  syscall: program.func('long syscall(long number, ...)') as (
    number: number,
    ...typesAndArguments: readonly unknown[]
  ) => number,
  gettid: program.func('int gettid()') as () => number,
  clock_gettime: program.func('int clock_gettime(int clock, void *time)') as (clock: number, time: Bytes) => number,
  /** Node's own refuses in worker threads. */
  abort: program.func('void abort()') as () => void,
} as const;

/** `EADDRINUSE` and the like for the call that failed last on this thread. Read it before any other call. */
export function lastErrno(): string {
  const errno = koffi.errno();
  return errno === 0 ? 'unknown' : getSystemErrorName(-errno);
}

/** A `MeshError` for the libc call that just returned −1. */
export function callError(code: ReasonCode, call: string, fields: ErrorFields = {}): MeshError {
  return errnoError(code, call, lastErrno(), fields);
}

export function errnoError(code: ReasonCode, call: string, errno: string, fields: ErrorFields = {}): MeshError {
  const places = [fields['address'], fields['path']].filter((place) => place !== undefined);
  const hint = HINTS[errno];
  const where = places.length === 0 ? '' : ` (${places.join(', ')})`;
  return new MeshError(code, `${call} failed with ${errno}${where}${hint === undefined ? '' : `; ${hint}`}`, {
    ...fields,
    call,
    errno,
  });
}

/** By errno: what to do about it. */
const HINTS: Readonly<Partial<Record<string, string>>> = {
  EPERM: 'CAP_SYS_ADMIN and CAP_NET_ADMIN are needed',
  // Of a path the rights are those of its file; no capability of ours opens it.
  EACCES: 'run as root, or as a user who may use it',
  EAFNOSUPPORT: 'a kernel without IPv6 needs IPV6_ENABLED=false',
  EMFILE: 'raise the limit of open files (ulimit -n)',
  ENFILE: 'raise the limit of open files of the machine (sysctl fs.file-max)',
};
