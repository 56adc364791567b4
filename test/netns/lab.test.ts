/** The lab under the demo, the netns tests and the bench: it connects what it should, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createLab, type Lab, type LabPod } from '../../src/cli/lab/lab.ts';
import { type Family, planLab } from '../../src/cli/lab/plan.ts';
import { labFolder, netnsPrefix, removeLab } from '../../src/cli/lab/registry.ts';
import { Sniffer } from '../../src/cli/lab/sniffer.ts';
import { Wiretap } from '../../src/cli/lab/wiretap.ts';
import { skipWithoutRoot } from '../support/netns.ts';

const options = { skip: skipWithoutRoot, timeout: 60_000 };
const OWNER = fileURLToPath(new URL('../support/lab-owner.ts', import.meta.url));
const NODES = [
  { name: 'node-a', pods: ['shop', 'blog'] },
  { name: 'node-b', pods: ['cart'] },
];

const SERVE = `require('node:net').createServer((s) => s.end(s.remoteAddress)).listen(80, '::', () => console.log('up'))`;
const READ = (ip: string) =>
  `require('node:net').connect(80, '${ip}').on('data', (d) => console.log(String(d))).on('error', (e) => console.log(e.code))`;

async function serve(pod: LabPod): Promise<ChildProcess> {
  const child = pod.inside.spawn([process.execPath, '-e', SERVE], { stdio: ['ignore', 'pipe', 'inherit'] });
  assert(child.stdout !== null);
  await once(child.stdout, 'data');
  return child;
}

async function readFrom(pod: LabPod, ip: string): Promise<string> {
  const { stdout } = await pod.inside.exec([process.execPath, '-e', READ(ip)]);
  return stdout.trim();
}

function remains(id: string): { namespaces: string[]; hasFolder: boolean } {
  const namespaces = readdirSync('/var/run/netns').filter((name) => name.startsWith(netnsPrefix(id)));
  return { namespaces, hasFolder: existsSync(labFolder(id)) };
}

const NOTHING = { namespaces: [], hasFolder: false };

for (const family of ['ipv4', 'ipv6', 'dual'] as const satisfies readonly Family[]) {
  test(`${family}: pods of both nodes reach one another and are seen with their own address`, options, async () => {
    using lab = await createLab({ nodes: NODES, family });
    await serve(lab.pod('cart'));
    assert.equal(lab.pod('cart').ips.length, family === 'dual' ? 2 : 1);
    for (const [i, ip] of lab.pod('cart').ips.entries()) {
      const seen = await readFrom(lab.pod('shop'), ip);
      assert.equal(seen.replace('::ffff:', ''), lab.pod('shop').ips[i]);
    }
  });
}

test('a sniffer on the wire reads what passes between nodes, and not what stays on one', options, async () => {
  using lab = await createLab({ nodes: NODES, family: 'ipv4' });
  await serve(lab.pod('cart'));
  await serve(lab.pod('blog'));
  const tap = new Wiretap();
  const sniffer = await Sniffer.start(lab.wire, lab.node('node-a').wirePort, (segment) => tap.add(segment));
  await readFrom(lab.pod('shop'), lab.pod('blog').ip);
  await readFrom(lab.pod('shop'), lab.pod('cart').ip);
  await sniffer.settle();
  await sniffer[Symbol.asyncDispose]();
  const spoken = tap.streams().filter((stream) => stream.bytes.length > 0);
  const texts = spoken.map((stream) => `${stream.from.ip}: ${stream.bytes.toString()}`);
  assert.deepEqual(texts, [`${lab.pod('cart').ip}: ::ffff:${lab.pod('shop').ip}`]);
});

test('disposing ends the programs inside, and removes namespaces and files', options, async () => {
  const lab = await createLab({ nodes: NODES, family: 'ipv4' });
  const child = await serve(lab.pod('cart'));
  lab[Symbol.dispose]();
  await once(child, 'exit');
  assert.equal(child.signalCode, 'SIGKILL');
  assert.deepEqual(remains(lab.id), NOTHING);
});

/** Namespaces of labs without a folder. Other tests build labs at the same time: theirs have one. */
function orphans(): string[] {
  const names = readdirSync('/var/run/netns').filter((name) => /^cv[0-9a-f]{6}-/.test(name));
  const alone = names.filter((name) => !existsSync(labFolder(name.slice(2, 8))));
  return alone.filter((name) => existsSync(`/var/run/netns/${name}`));
}

test('a lab that cannot be built leaves nothing', options, async () => {
  const nodes = [...NODES, { name: 'n'.repeat(300), pods: [] }];
  await assert.rejects(createLab({ nodes, family: 'ipv4' }), /ip netns add/);
  assert.deepEqual(orphans(), []);
});

test('the interfaces and routes of the host stay as they are', options, async () => {
  const look = () => execFileSync('ip', ['-o', 'addr']).toString() + execFileSync('ip', ['route']).toString();
  const before = look();
  using _lab: Lab = await createLab({ nodes: NODES, family: 'dual' });
  assert.equal(look(), before);
});

test('two nodes or pods of one name are refused before anything is made', () => {
  const twice = [{ name: 'node-a', pods: ['shop', 'shop'] }];
  assert.throws(() => planLab('x-', twice, 'ipv4'), RangeError);
});

/** Starts a process that makes a lab, does `ending`, and prints the id of the lab. */
async function ownerOf(ending: string): Promise<{ readonly child: ChildProcess; readonly id: string }> {
  const child = spawn(process.execPath, [OWNER, ending], { stdio: ['pipe', 'pipe', 'ignore'] });
  const [id] = (await once(createInterface(child.stdout), 'line')) as [string];
  assert.equal(remains(id).namespaces.length, 3);
  return { child, id };
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  test(`${signal} removes the lab of the process and ends it with ${code}`, options, async () => {
    const { child, id } = await ownerOf('wait');
    child.kill(signal);
    assert.deepEqual(await once(child, 'exit'), [code, null]);
    assert.deepEqual(remains(id), NOTHING);
  });
}

for (const ending of ['exit', 'throw']) {
  test(`a process that ends by ${ending} removes its lab`, options, async () => {
    const { child, id } = await ownerOf(ending);
    child.stdin?.end('go\n');
    await once(child, 'exit');
    assert.deepEqual(remains(id), NOTHING);
  });
}

test('what a killed process left is removed when the next lab is made', options, async () => {
  const { child, id } = await ownerOf('wait');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(remains(id).hasFolder, true);
  using _next = await createLab({ nodes: [{ name: 'node', pods: [] }], family: 'ipv4' });
  assert.deepEqual(remains(id), NOTHING);
});

test('a kept lab outlives its owner and later labs, until it is removed by its id', options, async () => {
  const { child, id } = await ownerOf('keep');
  child.stdin?.end('go\n');
  await once(child, 'exit');
  try {
    using _next = await createLab({ nodes: [{ name: 'node', pods: [] }], family: 'ipv4' });
    assert.equal(remains(id).namespaces.length, 3);
  } finally {
    removeLab(id);
  }
  assert.deepEqual(remains(id), NOTHING);
});
