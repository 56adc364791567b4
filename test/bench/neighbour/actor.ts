/**
 * One process of the neighbour bench, inside a pod. Usage:
 *   actor.ts serve <port>                          answers 1 KiB with 1 KiB, swallows bulk
 *   actor.ts probe <host> <port>                   asks for as many seconds as each line of stdin says; prints what each request
 *                                                  took, ms, one line for each of stdin
 *   actor.ts greedy <host> <port> <rate> <bulk>    so many new connections a second, and bulk connections, until killed;
 *                                                  lines of stdin let it `rest` and `go on`
 */
import { once } from 'node:events';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const REQUEST = Buffer.alloc(1_024, 'r');
const BULK = Buffer.alloc(256 * 1_024, 'b');
/** Between two requests: a neighbour that is modest. */
const PAUSE_MS = 1;
/** New connections in progress; beyond, one is not begun. */
const MOST_PENDING = 512;

const [role = '', ...rest] = process.argv.slice(2);

function serve(port: number): void {
  net
    .createServer({ noDelay: true }, (socket) => {
      let owed = 0;
      socket.on('error', () => {});
      socket.on('data', (chunk) => {
        if (chunk[0] === BULK[0]) return;
        owed += chunk.length;
        for (; owed >= REQUEST.length; owed -= REQUEST.length) socket.write(REQUEST);
      });
    })
    .listen(port, '0.0.0.0', () => process.stdout.write('ready\n'));
}

async function probe(host: string, port: number): Promise<void> {
  const socket = net.connect({ host, port, noDelay: true });
  let received = 0;
  let wake = (): void => {};
  socket.on('data', (chunk) => {
    received += chunk.length;
    wake();
  });
  await once(socket, 'connect');
  for await (const seconds of createInterface(process.stdin)) {
    const times: number[] = [];
    const endMs = performance.now() + Number(seconds) * 1_000;
    while (performance.now() < endMs) {
      const wanted = received + REQUEST.length;
      const startedMs = performance.now();
      socket.write(REQUEST);
      while (received < wanted) await new Promise<void>((resolve) => (wake = resolve));
      times.push(performance.now() - startedMs);
      await sleep(PAUSE_MS);
    }
    process.stdout.write(`${JSON.stringify(times)}\n`);
  }
  process.exit(0);
}

function greedy(host: string, port: number, perSecond: number, bulk: number): void {
  const done = { connections: 0, failed: 0, bytes: 0 };
  let isResting = false;
  const fillers = Array.from({ length: bulk }, () => {
    const socket = net.connect({ host, port });
    const fill = (): void => {
      if (isResting || socket.writableNeedDrain) return;
      do done.bytes += BULK.length;
      while (socket.write(BULK));
    };
    socket
      .on('error', () => {})
      .on('connect', fill)
      .on('drain', fill);
    return fill;
  });
  let pending = 0;
  const begin = (): void => {
    if (pending >= MOST_PENDING) return;
    pending += 1;
    const socket = net.connect({ host, port, noDelay: true }, () => socket.write(REQUEST));
    socket.on('error', () => (done.failed += 1));
    socket.once('data', () => {
      done.connections += 1;
      socket.destroy();
    });
    socket.on('close', () => (pending -= 1));
  };
  let begun = 0;
  let startedMs = performance.now();
  setInterval(() => {
    if (isResting) return;
    for (const due = ((performance.now() - startedMs) / 1_000) * perSecond; begun < due; begun++) begin();
  }, 2);
  setInterval(() => process.stdout.write(`${JSON.stringify({ ...done, pending })}\n`), 250);
  createInterface(process.stdin).on('line', (line) => {
    isResting = line === 'rest';
    if (isResting) return;
    startedMs = performance.now();
    begun = 0;
    for (const fill of fillers) fill();
  });
}

const [first = '', second = '', third = '', fourth = ''] = rest;
if (role === 'serve') serve(Number(first));
else if (role === 'probe') await probe(first, Number(second));
else if (role === 'greedy') greedy(first, Number(second), Number(third), Number(fourth));
else throw new Error(`no such role: ${role}`);
