/**
 * Opens N connections, makes one 1 KiB exchange on each, prints `HELD N` and keeps them idle until it is
 * stopped. Runs in the client pod; its own cost is not measured. Usage: hold-idle.ts <host> <port> <connections>
 */
import net from 'node:net';

const [host = '', port = '', wanted = ''] = process.argv.slice(2);
const MAX_IN_FLIGHT = 64;
const sockets: net.Socket[] = [];
const request = `GET / HTTP/1.1\r\nHost: bench\r\nX-Padding: ${'x'.repeat(920)}\r\n\r\n`;
const BODY_BYTES = 1024;

function exchange(): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(port), host);
    let answer = '';
    socket.once('error', reject);
    socket.once('close', () => reject(new Error(`closed after ${sockets.length} connections`)));
    socket.on('connect', () => socket.write(request));
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
      const bodyAt = answer.indexOf('\r\n\r\n') + 4;
      if (bodyAt < 4 || answer.length - bodyAt < BODY_BYTES) return;
      sockets.push(socket);
      resolve();
    });
  });
}

async function openInTurn(): Promise<void> {
  while (started < Number(wanted)) {
    started++;
    await exchange();
  }
}

let started = 0;
await Promise.all(Array.from({ length: MAX_IN_FLIGHT }, openInTurn));
process.stdout.write(`HELD ${sockets.length}\n`);
