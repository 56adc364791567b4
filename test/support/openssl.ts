/** Debian's `openssl s_client` and `s_server` as peers that nobody here wrote. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsMaterial } from '../../src/model/verdict.ts';

export interface OpensslPeer extends AsyncDisposable {
  /** Writes to the peer's stdin, which it sends as data. */
  send(text: string): void;
  /** Resolves with all output so far once it matches. */
  seen(pattern: RegExp): Promise<string>;
  /** All output, after the process has ended. */
  readonly ended: Promise<string>;
}

/** `openssl <command> <args>` in a directory that holds `key.pem`, `cert.pem`, `chain.pem` and `roots.pem`. */
export function openssl(command: 's_client' | 's_server', args: readonly string[], material: TlsMaterial): OpensslPeer {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-openssl-'));
  const leafEnd = material.chainPem.indexOf('-----END CERTIFICATE-----') + 26;
  const files = {
    'key.pem': material.keyPem,
    'cert.pem': material.chainPem.slice(0, leafEnd),
    'chain.pem': material.chainPem.slice(leafEnd),
    'roots.pem': material.rootsPem.join(''),
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text, { mode: 0o600 });
  const child = spawn('openssl', [command, ...args], { cwd: directory, stdio: ['pipe', 'pipe', 'pipe'] });
  let output = '';
  const listeners = new Set<() => void>();
  const collect = (chunk: Buffer): void => {
    output += chunk.toString();
    for (const listener of listeners) listener();
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'close').then(() => output);
  return {
    send: (text) => child.stdin.write(text),
    ended,
    async seen(pattern) {
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      const check = (): void => {
        if (pattern.test(output)) resolve(output);
      };
      listeners.add(check);
      check();
      void ended.then(() => reject(new Error(`openssl ended without ${String(pattern)}:\n${output}`)));
      return promise.finally(() => listeners.delete(check));
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
      rmSync(directory, { recursive: true });
    },
  };
}
