/** Server certificates for host names, made by Debian's openssl, as a control plane has them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface ServerCertificateFiles {
  readonly rootPem: string;
  readonly chainPem: string;
  readonly keyPem: string;
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** A root of its own and one leaf for `altNames` (`DNS:istiod.test`, `IP:127.0.0.1`), valid for two days. */
export function serverCertificate(...altNames: readonly string[]): ServerCertificateFiles {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-cert-'));
  const run = (...args: readonly string[]): void => {
    execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  };
  const read = (name: string): string => readFileSync(join(directory, name), 'utf8');
  try {
    writeFileSync(join(directory, 'leaf.cnf'), `basicConstraints=CA:FALSE\nsubjectAltName=${altNames.join(',')}\n`);
    run('req', '-x509', ...NEW_KEY, '-keyout', 'root.key', '-out', 'root.pem', '-days', '2', '-subj', '/CN=test root');
    run('req', '-new', ...NEW_KEY, '-keyout', 'leaf.key', '-out', 'leaf.csr', '-subj', '/CN=test server');
    const signer = ['-CA', 'root.pem', '-CAkey', 'root.key', '-CAcreateserial'];
    run('x509', '-req', '-in', 'leaf.csr', ...signer, '-out', 'leaf.pem', '-days', '2', '-extfile', 'leaf.cnf');
    return { rootPem: read('root.pem'), chainPem: read('leaf.pem'), keyPem: read('leaf.key') };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
