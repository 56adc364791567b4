// Debian packages a purpose needs. Root: installs those missing. Otherwise: prints the exact line to run, and why.
import { accessSync, constants, existsSync } from 'node:fs';
import path from 'node:path';
import { ensureCurl, hasNewCurl } from './curl.mjs';
import { pinnedNode } from './packages.mjs';
import { run } from './process.mjs';

/** Debian package: how to see that it is there, and what it is for. */
const TOOLS = {
  libatomic1: { runs: pinnedNode, why: 'the pinned Node itself' },
  nftables: { command: 'nft', why: 'redirection rules in the network namespace of a pod' },
  iproute2: { command: 'ip', why: 'network namespaces and policy routes' },
  iptables: { command: 'iptables-legacy', why: 'redirection rules not written here' },
  openssl: { command: 'openssl', why: 'TLS tests with a peer not written here' },
  'python3-h2': { python: 'h2', why: 'HTTP/2 tests with a peer not written here' },
  'python3-grpcio': { python: 'grpc', why: 'xDS and CA tests with servers not written here' },
  'python3-protobuf': { python: 'google.protobuf', why: 'xDS and CA tests with servers not written here' },
  'python3-prometheus-client': {
    python: 'prometheus_client',
    why: 'reading our metrics with a parser not written here',
  },
  'bind9-dnsutils': { command: 'dig', why: 'DNS tests with a client not written here' },
  'protobuf-compiler': { command: 'protoc', why: 'reading the .proto files' },
  'libprotobuf-dev': { file: '/usr/include/google/protobuf/any.proto', why: 'reading the .proto files' },
};

const NEEDS = {
  start: ['libatomic1'],
  tools: ['libatomic1'],
  demo: ['libatomic1', 'nftables', 'iproute2'],
  generate: ['libatomic1', 'protobuf-compiler', 'libprotobuf-dev'],
  test: Object.keys(TOOLS),
};

/** The Python that Debian packages install into; another `python3` may come first on the path. */
const DEBIAN_PYTHON = '/usr/bin/python3';

function hasCommand(command) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(path.join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

async function isPresent(root, tool) {
  if (tool.runs !== undefined) return (await run(tool.runs(root), ['--version'])).code === 0;
  if (tool.command !== undefined) return hasCommand(tool.command);
  if (tool.file !== undefined) return existsSync(tool.file);
  return (await run(DEBIAN_PYTHON, ['-c', `import ${tool.python}`])).code === 0;
}

async function missingTools(root, purpose) {
  const missing = [];
  for (const name of NEEDS[purpose]) if (!(await isPresent(root, TOOLS[name]))) missing.push(name);
  return missing;
}

async function install(names) {
  process.stderr.write(`set-up: apt-get install ${names.join(' ')}\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const args = ['-o', 'DPkg::Lock::Timeout=300', 'install', '-y', '--no-install-recommends', ...names];
  // A stale package list and a broken third-party source look alike here; only the install decides.
  await run('apt-get', ['-o', 'DPkg::Lock::Timeout=300', 'update'], { env });
  const result = await run('apt-get', args, { env });
  if (result.code !== 0) throw new Error(`apt-get install ${names.join(' ')} failed:\n${result.output}`);
}

function explainMissing(purpose, names) {
  process.stderr.write(`set-up: some Debian packages are missing and this is not root. Run:\n`);
  process.stderr.write(`  sudo apt-get install -y --no-install-recommends ${names.join(' ')}\n`);
  for (const name of names) process.stderr.write(`  ${name}: needed by npm run ${purpose} for ${TOOLS[name].why}\n`);
}

/** Tests that lack a tool skip with a reason, or fail when `CI` or `MESH_REQUIRE_ROOT` is set; so a miss is no error here. */
export async function ensureTools(root, purpose) {
  if (!(purpose in NEEDS)) throw new Error(`unknown purpose --for=${purpose}`);
  const missing = await missingTools(root, purpose);
  if (missing.length > 0) {
    if (process.getuid?.() === 0) await install(missing);
    else explainMissing(purpose, missing);
  }
  if (purpose === 'test' && !(await hasNewCurl(root))) await ensureCurl(root);
}
