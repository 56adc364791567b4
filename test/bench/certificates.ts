/** A throw-away ECDSA P-256 authority with one client and one server certificate for the peers, made by `openssl`. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.ts';

export interface PeerCertificates {
  readonly caPath: string;
  /** Certificate and key in one file, the form HAProxy wants; nginx reads the same file twice. */
  readonly clientPath: string;
  readonly serverPath: string;
}

const NEW_KEY = ['openssl', 'req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

async function issue(directory: string, name: string, usage: string): Promise<string> {
  const at = (file: string): string => join(directory, file);
  const extensions = `subjectAltName=URI:spiffe://cluster.local/ns/bench/sa/${name},DNS:${name}\nextendedKeyUsage=${usage}\n`;
  writeFileSync(at(`${name}.ext`), extensions);
  await run([...NEW_KEY, '-keyout', at(`${name}.key`), '-out', at(`${name}.csr`), '-subj', `/CN=${name}`]);
  const sign = ['openssl', 'x509', '-req', '-in', at(`${name}.csr`), '-CA', at('ca.pem'), '-CAkey', at('ca.key')];
  const certificate = await run([...sign, '-CAcreateserial', '-days', '2', '-extfile', at(`${name}.ext`)]);
  const key = await run(['openssl', 'pkey', '-in', at(`${name}.key`)]);
  writeFileSync(at(`${name}.pem`), certificate + key, { mode: 0o600 });
  return at(`${name}.pem`);
}

export async function makePeerCertificates(directory: string): Promise<PeerCertificates> {
  const caPath = join(directory, 'ca.pem');
  await run([
    ...NEW_KEY,
    '-x509',
    '-keyout',
    join(directory, 'ca.key'),
    '-out',
    caPath,
    '-subj',
    '/CN=bench',
    '-days',
    '2',
  ]);
  return {
    caPath,
    clientPath: await issue(directory, 'client', 'clientAuth'),
    serverPath: await issue(directory, 'server', 'serverAuth'),
  };
}
