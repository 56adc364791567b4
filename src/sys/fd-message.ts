/** Messages with descriptors on a unix socket: sendmsg(2), recvmsg(2), SCM_RIGHTS (unix(7), cmsg(3)). Never blocks. */
import koffi from 'koffi';
import { MeshError } from '../base/errors.ts';
import { errnoError, lastErrno, libc } from './libc.ts';
import type { FdMessage, PassedFds } from './unix-contract.ts';

/** What one call can carry; longer messages of a stream go in parts, of a packet socket not at all. */
const MAX_MESSAGE_BYTES = 64 * 1024;
/** SCM_MAX_FD of the kernel. */
const MAX_MESSAGE_FDS = 253;

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** struct cmsghdr on 64-bit machines: length, level, type; what follows is aligned to 8 bytes. */
const CMSG_HEADER_BYTES = 16;
const FD_BYTES = 4;
const CONTROL_BYTES = CMSG_HEADER_BYTES + aligned(MAX_MESSAGE_FDS * FD_BYTES);

/** struct msghdr on 64-bit machines, by offset; glibc and musl differ only in padding that is zero. */
const MSGHDR = { bytes: 56, iov: 16, iovLength: 24, control: 32, controlLength: 40, flags: 48 } as const;
/** struct iovec: base, length. */
const IOVEC = { bytes: 16, length: 8 } as const;

/** The address is written into the kernel's structures, so none of this may be moved or freed. One message at a time. */
const data = fixedMemory(MAX_MESSAGE_BYTES);
const control = fixedMemory(CONTROL_BYTES);
const iovec = fixedMemory(IOVEC.bytes);
const header = fixedMemory(MSGHDR.bytes);
iovec.view.setBigUint64(0, data.address, true);
header.view.setBigUint64(MSGHDR.iov, iovec.address, true);
header.view.setBigUint64(MSGHDR.iovLength, 1n, true);

/** Up to `maxBytes` of the next message; `later`: nothing is there yet. Throws `CV-SYS`. */
export function receiveMessage(fd: number, maxBytes: number): FdMessage | 'end' | 'later' {
  prepare(Math.min(maxBytes, MAX_MESSAGE_BYTES), CONTROL_BYTES);
  const received = libc.recvmsg(fd, header.bytes, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received < 0) return laterOrThrow('recvmsg');
  const open = receivedFds();
  const lost = whatIsLost(header.view.getInt32(MSGHDR.flags, true));
  if (received === 0 && open.length === 0 && lost === undefined) return 'end';
  if (lost !== undefined) closeAll(open);
  const fds = passed(open);
  return { data: data.bytes.slice(0, received), fds, lost, [Symbol.dispose]: () => fds[Symbol.dispose]() };
}

/** How many bytes were taken, with all of `fds` when it is not 0; `later`: there is no room yet. Throws `CV-SYS`. */
export function sendMessage(fd: number, bytes: Uint8Array, fds: readonly number[] = []): number | 'later' {
  if (bytes.length > MAX_MESSAGE_BYTES) throw tooMuch('bytes', bytes.length, MAX_MESSAGE_BYTES);
  if (fds.length > MAX_MESSAGE_FDS) throw tooMuch('descriptors', fds.length, MAX_MESSAGE_FDS);
  data.bytes.set(bytes);
  prepare(bytes.length, writeFds(fds));
  const sent = libc.sendmsg(fd, header.bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent < 0 ? laterOrThrow('sendmsg') : sent;
}

function prepare(dataBytes: number, controlBytes: number): void {
  iovec.view.setBigUint64(IOVEC.length, BigInt(dataBytes), true);
  header.view.setBigUint64(MSGHDR.control, controlBytes === 0 ? 0n : control.address, true);
  header.view.setBigUint64(MSGHDR.controlLength, BigInt(controlBytes), true);
  header.view.setInt32(MSGHDR.flags, 0, true);
}

/** Length of the control data. */
function writeFds(fds: readonly number[]): number {
  if (fds.length === 0) return 0;
  control.view.setBigUint64(0, BigInt(CMSG_HEADER_BYTES + fds.length * FD_BYTES), true);
  control.view.setInt32(8, SOL_SOCKET, true);
  control.view.setInt32(12, SCM_RIGHTS, true);
  for (const [i, fd] of fds.entries()) control.view.setInt32(CMSG_HEADER_BYTES + i * FD_BYTES, fd, true);
  return CMSG_HEADER_BYTES + aligned(fds.length * FD_BYTES);
}

/** Of all control messages, also when they were cut: what is listed is open in this process. */
function receivedFds(): number[] {
  const fds: number[] = [];
  const end = Number(header.view.getBigUint64(MSGHDR.controlLength, true));
  for (let at = 0; at + CMSG_HEADER_BYTES <= end; ) {
    const length = Number(control.view.getBigUint64(at, true));
    if (length < CMSG_HEADER_BYTES) break;
    const isRights =
      control.view.getInt32(at + 8, true) === SOL_SOCKET && control.view.getInt32(at + 12, true) === SCM_RIGHTS;
    const bodyEnd = Math.min(at + length, end);
    for (let body = at + CMSG_HEADER_BYTES; isRights && body + FD_BYTES <= bodyEnd; body += FD_BYTES) {
      fds.push(control.view.getInt32(body, true));
    }
    at += aligned(length);
  }
  return fds;
}

function whatIsLost(flags: number): FdMessage['lost'] {
  if ((flags & MSG_CTRUNC) !== 0) return 'descriptors';
  return (flags & MSG_TRUNC) === 0 ? undefined : 'data';
}

/** Owns `open` from now on. */
function passed(open: number[]): PassedFds {
  return { count: open.length, take: () => open.shift(), [Symbol.dispose]: () => closeAll(open) };
}

/** Leaves `open` empty. */
function closeAll(open: number[]): void {
  for (const fd of open.splice(0)) libc.close(fd);
}

function laterOrThrow(call: string): 'later' {
  const errno = lastErrno();
  if (errno === 'EAGAIN' || errno === 'EINTR') return 'later';
  throw errnoError('CV-SYS', call, errno);
}

function tooMuch(what: string, count: number, limit: number): MeshError {
  return new MeshError('CV-SYS', `a message with ${count} ${what} does not fit one call`, { count, limit });
}

function fixedMemory(bytes: number) {
  const address: bigint = koffi.alloc('uint8_t', bytes);
  const buffer = koffi.view(address, bytes);
  const memory = new Uint8Array(buffer).fill(0);
  return { address, bytes: memory, view: new DataView(buffer) };
}

function aligned(length: number): number {
  return (length + 7) & ~7;
}
