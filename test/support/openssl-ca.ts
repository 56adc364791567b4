/** A certificate authority run by the `openssl` command alone: root, issuing CA, leaves and revocation lists. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsMaterial } from '../../src/model/verdict.ts';

const CONFIG = `
[ca]
default_ca = root
[root]
database = root-index.txt
certificate = root.pem
private_key = root-key.pem
default_md = sha256
default_crl_days = 7
crl_extensions = list
[issuing]
database = issuing-index.txt
certificate = issuing.pem
private_key = issuing-key.pem
default_md = sha384
default_crl_days = 7
crl_extensions = list
[list]
authorityKeyIdentifier = keyid
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
`;

export class OpensslCa implements Disposable {
  /** `root.pem`, `issuing.pem` and `issuing-key.pem` are here. */
  readonly folder = mkdtempSync(join(tmpdir(), 'culvert-openssl-ca-'));
  #leaves = 0;

  constructor() {
    this.#write('ca.cnf', CONFIG);
    this.#write('root-index.txt', '');
    this.#write('issuing-index.txt', '');
    this.#key('root');
    this.#run(
      'req',
      '-new',
      '-x509',
      '-key',
      'root-key.pem',
      '-subj',
      '/O=Foreign/CN=Root',
      ...this.#authority,
      'root.pem',
    );
    this.#key('issuing');
    this.#run('req', '-new', '-key', 'issuing-key.pem', '-subj', '/O=Foreign/CN=Issuing', '-out', 'issuing.csr');
    const signer = ['-CA', 'root.pem', '-CAkey', 'root-key.pem', '-extfile', 'ca.cnf', '-extensions', 'authority'];
    this.#run('x509', '-req', '-in', 'issuing.csr', ...signer, '-days', '2', '-out', 'issuing.pem');
  }

  /** Key, chain and root for a SPIFFE identity. */
  leaf(identity: string): TlsMaterial & { readonly file: string } {
    this.#leaves += 1;
    const name = `leaf-${this.#leaves}`;
    this.#key(name);
    this.#write(`${name}.ext`, `subjectAltName=critical,URI:${identity}\nextendedKeyUsage=serverAuth,clientAuth\n`);
    this.#run('req', '-new', '-key', `${name}-key.pem`, '-subj', '/', '-out', `${name}.csr`);
    const signer = ['-CA', 'issuing.pem', '-CAkey', 'issuing-key.pem', '-extfile', `${name}.ext`];
    this.#run('x509', '-req', '-in', `${name}.csr`, ...signer, '-days', '1', '-out', `${name}.pem`);
    return {
      identity,
      keyPem: this.#read(`${name}-key.pem`),
      chainPem: this.#read(`${name}.pem`) + this.#read('issuing.pem'),
      rootsPem: [this.#read('root.pem')],
      serial: name,
      notAfterMs: Date.now() + 86_400_000,
      file: `${name}.pem`,
    };
  }

  /** A list of the issuing CA with these leaves, or of the root with the issuing CA itself; PEM. */
  list(signer: 'root' | 'issuing', revoked: readonly string[]): string {
    for (const file of revoked) {
      this.#run('ca', '-config', 'ca.cnf', '-name', signer, '-revoke', file, '-crl_reason', 'keyCompromise');
    }
    return this.#run('ca', '-config', 'ca.cnf', '-name', signer, '-gencrl').toString();
  }

  /** The same list in DER. */
  toDer(pem: string): Buffer {
    this.#write('list.pem', pem);
    return this.#run('crl', '-in', 'list.pem', '-outform', 'DER');
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }

  get #authority(): readonly string[] {
    return ['-config', 'ca.cnf', '-extensions', 'authority', '-days', '2', '-out'];
  }

  #key(name: string): void {
    this.#run('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', `${name}-key.pem`);
  }

  #run(command: string, ...args: readonly string[]): Buffer {
    return execFileSync('openssl', [command, ...args], { cwd: this.folder, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text);
  }

  #read(name: string): string {
    return readFileSync(join(this.folder, name), 'utf8');
  }
}
