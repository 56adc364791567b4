import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { MeshError } from '../../../src/base/errors.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import type { UnixListener, UnixSocket, UnixSocketType } from '../../../src/sys/unix-contract.ts';

const timed = { timeout: 90_000 };
const TYPES = ['seqpacket', 'stream'] as const;
const KIB = 1024;
const folder = mkdtempSync(join(tmpdir(), 'culvert-unix-'));
after(() => rmSync(folder, { recursive: true, force: true }));

let lastPath = 0;

function listen(type: UnixSocketType): UnixListener {
  lastPath += 1;
  return linuxSys.listenUnix(join(folder, `${lastPath}.sock`), { type });
}

interface Pair extends Disposable {
  readonly near: UnixSocket;
  readonly far: UnixSocket;
}

async function pair(type: UnixSocketType): Promise<Pair> {
  using listener = listen(type);
  const near = linuxSys.connectUnix(listener.path, type);
  const far = await listener.accept();
  assert.ok(far);
  return {
    near,
    far,
    [Symbol.dispose]() {
      near[Symbol.dispose]();
      far[Symbol.dispose]();
    },
  };
}

function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

function bytes(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);
}

function hasErrno(errno: string): (error: unknown) => boolean {
  return (error) => error instanceof MeshError && error.fields['errno'] === errno;
}

/** Descriptors of files with a known inode each. */
function files(count: number): { readonly fds: readonly number[]; readonly inodes: readonly bigint[] } & Disposable {
  const fds = Array.from({ length: count }, (_, i) => {
    const path = join(folder, `file-${i}`);
    writeFileSync(path, String(i));
    return openSync(path, 'r');
  });
  return {
    fds,
    inodes: fds.map((fd) => fstatSync(fd, { bigint: true }).ino),
    [Symbol.dispose]: () => fds.forEach((fd) => closeSync(fd)),
  };
}

for (const type of TYPES) {
  test(`${type}: bytes and 100 descriptors arrive together, each the file that was sent`, timed, async () => {
    using sent = files(100);
    const before = openFds();
    {
      using ends = await pair(type);
      await ends.near.send(bytes(300), sent.fds);
      using message = await ends.far.receive(KIB);
      assert.deepEqual(message?.data, bytes(300));
      assert.equal(message?.lost, undefined);
      assert.equal(message?.fds.count, 100);
      const taken = sent.fds.map(() => message?.fds.take() ?? -1);
      assert.equal(message?.fds.take(), undefined);
      assert.deepEqual(
        taken.map((fd) => fstatSync(fd, { bigint: true }).ino),
        sent.inodes,
      );
      for (const fd of taken) closeSync(fd);
    }
    assert.equal(openFds(), before);
  });

  test(`${type}: both ends know the process at the other`, timed, async () => {
    using ends = await pair(type);
    const own = { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() };
    assert.deepEqual([ends.near.peer, ends.far.peer], [own, own]);
  });

  test(`${type}: who waits learns that the other end, or its own, has closed`, timed, async () => {
    using ends = await pair(type);
    const [waiting, own] = [ends.near.receive(KIB), ends.far.receive(KIB)];
    ends.far[Symbol.dispose]();
    assert.deepEqual([await waiting, await own], [undefined, undefined]);
    await assert.rejects(ends.near.send(bytes(1)), hasErrno('EPIPE'));
    await assert.rejects(ends.far.send(bytes(1)), /closed before all was sent/);
  });

  test(`${type}: a writer waits for a slow reader, and all arrives in order`, timed, async () => {
    using ends = await pair(type);
    const count = 400;
    let isSent = false;
    const parts = Array.from({ length: count }, (_, i) => bytes(8 * KIB, i));
    const all = Promise.all(parts.map((part) => ends.near.send(part))).then(() => (isSent = true));
    const received: Uint8Array[] = [];
    for (let left = count * 8 * KIB; left > 0; ) {
      using message = await ends.far.receive(8 * KIB);
      assert.ok(message);
      if (received.length === 0) assert.equal(isSent, false);
      received.push(message.data);
      left -= message.data.length;
    }
    await all;
    assert.ok(Buffer.concat(parts).equals(Buffer.concat(received)));
  });
}

test('packets keep their bounds; one longer than asked for says so and its descriptors are closed', timed, async () => {
  using sent = files(3);
  using ends = await pair('seqpacket');
  const before = openFds();
  await ends.near.send(bytes(1024));
  await ends.near.send(bytes(1025), sent.fds);
  await ends.near.send(bytes(2));
  using exact = await ends.far.receive(1024);
  using long = await ends.far.receive(1024);
  using next = await ends.far.receive(1024);
  assert.deepEqual([exact?.data.length, exact?.lost], [1024, undefined]);
  assert.deepEqual([long?.data.length, long?.lost, long?.fds.take()], [1024, 'data', undefined]);
  assert.deepEqual(next?.data, bytes(2));
  assert.equal(openFds(), before);
});

test('descriptors that nobody takes are closed with their message', timed, async () => {
  using sent = files(5);
  using ends = await pair('seqpacket');
  const before = openFds();
  await ends.near.send(bytes(1), sent.fds);
  {
    using message = await ends.far.receive(KIB);
    const taken = message?.fds.take() ?? -1;
    assert.equal(openFds(), before + 5);
    closeSync(taken);
  }
  assert.equal(openFds(), before);
});

test('descriptors for which the process has no room are reported, and those that came are closed', timed, async () => {
  const source = `
    import { readdirSync } from 'node:fs';
    const { linuxSys } = await import('${new URL('../../../src/sys/linux.ts', import.meta.url).href}');
    const listener = linuxSys.listenUnix('${join(folder, 'crowded.sock')}', { type: 'seqpacket' });
    const near = linuxSys.connectUnix(listener.path, 'seqpacket');
    const far = await listener.accept();
    const open = () => readdirSync('/proc/self/fd').length;
    const before = open();
    await near.send(new Uint8Array(1), Array(100).fill(0));
    const { lost, fds } = await far.receive(100);
    console.log(JSON.stringify({ lost, count: fds.take() ?? 'none', leaked: open() - before }));
    process.exit();`;
  const argv = ['--nofile=100', process.execPath, '--input-type=module', '-e', source];
  const { stdout } = await promisify(execFile)('prlimit', argv);
  assert.deepEqual(JSON.parse(stdout), { lost: 'descriptors', count: 'none', leaked: 0 });
});

test('an aborted receive loses no message', timed, async () => {
  using ends = await pair('seqpacket');
  const controller = new AbortController();
  const waiting = ends.far.receive(KIB, controller.signal);
  controller.abort(new Error('enough'));
  await assert.rejects(waiting, /enough/);
  await ends.near.send(bytes(9));
  await assert.rejects(ends.far.receive(KIB, controller.signal), /enough/);
  using message = await ends.far.receive(KIB);
  assert.deepEqual(message?.data, bytes(9));
});

test('a peer that never pauses leaves the event loop its turns', timed, async () => {
  using ends = await pair('seqpacket');
  let isFlooding = true;
  const flood = (async () => {
    while (isFlooding) await ends.near.send(bytes(1));
  })();
  const received = (async () => {
    for (let count = 0; ; count += 1) {
      using message = await ends.far.receive(KIB);
      if (message === undefined) return count;
    }
  })();
  const turns = await new Promise<number>((resolve) => {
    let count = 0;
    const turn = (): void => void ((count += 1) === 200 ? resolve(count) : setTimeout(turn, 0));
    turn();
  });
  isFlooding = false;
  await flood;
  ends.near[Symbol.dispose]();
  assert.equal(turns, 200);
  assert.ok((await received) > 0);
});

test('a listener takes many at once, replaces a stale socket file, and takes its own away', timed, async () => {
  const before = openFds();
  const stale = listen('seqpacket');
  {
    using listener = linuxSys.listenUnix(stale.path, { type: 'seqpacket', mode: 0o640 });
    assert.equal(statSync(listener.path).mode & 0o777, 0o640);
    stale[Symbol.dispose]();
    assert.equal(existsSync(listener.path), true, 'the file of the newer listener is not the older one’s to remove');
    const near = Array.from({ length: 50 }, () => linuxSys.connectUnix(listener.path, 'seqpacket'));
    for (const socket of near) {
      using far = await listener.accept();
      assert.equal(far?.peer.pid, process.pid);
      socket[Symbol.dispose]();
    }
    const waiting = listener.accept();
    listener[Symbol.dispose]();
    assert.equal(await waiting, undefined);
  }
  assert.equal(existsSync(stale.path), false);
  assert.equal(openFds(), before);
});

test('what cannot be connected or bound says why and leaves nothing open', timed, () => {
  const before = openFds();
  const stale = listen('stream');
  const path = stale.path;
  assert.throws(() => linuxSys.connectUnix(path, 'seqpacket'), hasErrno('EPROTOTYPE'));
  stale[Symbol.dispose]();
  assert.throws(() => linuxSys.connectUnix(path, 'stream'), hasErrno('ENOENT'));
  assert.throws(() => linuxSys.connectUnix(`/tmp/${'long'.repeat(30)}`, 'stream'), /1 to 107 bytes/);
  writeFileSync(path, 'not a socket');
  assert.throws(() => linuxSys.listenUnix(path, { type: 'stream' }), hasErrno('EADDRINUSE'));
  assert.equal(existsSync(path), true);
  assert.throws(() => linuxSys.adoptNetns(openSync(path, 'r')), /not a network namespace/);
  assert.equal(openFds(), before);
});
