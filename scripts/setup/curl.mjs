// A curl that tunnels through an HTTP/2 proxy, from Debian backports, unpacked beside node_modules: the system's own curl stays.
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { run } from './process.mjs';

/** `--proxy-http2` with a client certificate works from here on. */
const WANTED = { major: 8, minor: 10 };
/** Of the package debian-archive-keyring; without it apt's own trusted keys decide. */
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

function home(root) {
  return path.join(root, 'node_modules/.cache/culvert');
}

function isNewEnough(versionText) {
  const [, major, minor] = /^curl (\d+)\.(\d+)\./.exec(versionText) ?? [];
  if (major === undefined || !versionText.includes('HTTP2')) return false;
  return Number(major) > WANTED.major || (Number(major) === WANTED.major && Number(minor) >= WANTED.minor);
}

export async function hasNewCurl(root) {
  for (const command of [path.join(home(root), 'bin/curl'), 'curl']) {
    const { code, output } = await run(command, ['--version']);
    if (code === 0 && isNewEnough(output)) return true;
  }
  return false;
}

/** The mirror this machine already uses, as apt knows it; Culvert names no host. */
async function debianMirror() {
  const format = '$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(REPO_URI)';
  const { output } = await run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
  for (const line of output.split('\n')) {
    const [origin, codename, component, uri] = line.split('|');
    if (origin === 'Debian' && component === 'main' && !/[-/]/.test(codename ?? '')) return { codename, uri };
  }
  return undefined;
}

/** apt with lists, cache and sources of its own: nothing of the machine's configuration changes, and root is not needed. */
function privateApt(folder) {
  const own = {
    'Dir::State::lists': path.join(folder, 'lists'),
    'Dir::Cache': path.join(folder, 'cache'),
    'Dir::Etc::sourcelist': path.join(folder, 'backports.list'),
    'Dir::Etc::sourceparts': '/dev/null',
    'Debug::NoLocking': '1',
    'APT::Sandbox::User': '',
    'Acquire::Languages': 'none',
  };
  const options = Object.entries(own).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  return (...args) => run('apt-get', [...options, ...args]);
}

async function download(folder, mirror) {
  for (const part of ['lists/partial', 'cache/archives/partial'])
    mkdirSync(path.join(folder, part), { recursive: true });
  const signed = existsSync(KEYRING) ? ` [signed-by=${KEYRING}]` : '';
  const suites = [mirror.codename, `${mirror.codename}-backports`];
  const lines = suites.map((suite) => `deb${signed} ${mirror.uri} ${suite} main\n`);
  writeFileSync(path.join(folder, 'backports.list'), lines.join(''));
  const apt = privateApt(folder);
  const steps = [['update'], ['install', '-y', '--download-only', '--no-install-recommends', '-t', suites[1], 'curl']];
  for (const step of steps) {
    const { code, output } = await apt(...step);
    if (code !== 0) throw new Error(`apt-get ${step[0]} with backports failed:\n${output}`);
  }
  return path.join(folder, 'cache/archives');
}

async function unpack(archives, prefix) {
  for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb'))) {
    const { code, output } = await run('dpkg-deb', ['-x', path.join(archives, name), prefix]);
    if (code !== 0) throw new Error(`dpkg-deb -x ${name} failed: ${output}`);
  }
}

/** Shell wrapper: the libraries unpacked beside it come before the system's. */
function writeWrapper(root, prefix) {
  const bin = path.join(home(root), 'bin');
  mkdirSync(bin, { recursive: true });
  const libraries = readdirSync(path.join(prefix, 'usr/lib')).filter((name) => name.includes('-linux-gnu'));
  const searched = libraries.map((name) => path.join(prefix, 'usr/lib', name)).join(':');
  const text = `#!/bin/sh\nLD_LIBRARY_PATH='${searched}' exec '${path.join(prefix, 'usr/bin/curl')}' "$@"\n`;
  writeFileSync(path.join(bin, 'curl'), text, { mode: 0o755 });
}

/** A failure is reported and leaves the tests that need this curl to skip, or in CI to fail, by name. */
export async function ensureCurl(root) {
  const folder = path.join(home(root), 'backports');
  const prefix = path.join(home(root), 'curl');
  try {
    process.stderr.write('set-up: fetching a curl with HTTP/2 proxy support from Debian backports\n');
    const mirror = await debianMirror();
    if (mirror === undefined) throw new Error('apt knows no Debian mirror');
    await unpack(await download(folder, mirror), prefix);
    if (existsSync(path.join(prefix, 'usr/bin/curl'))) writeWrapper(root, prefix);
    if (!(await hasNewCurl(root))) throw new Error('the unpacked curl does not run');
  } catch (error) {
    process.stderr.write(`set-up: no new curl: ${error.message}\n`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
