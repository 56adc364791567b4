/** Views of a saved config_dump: our counterpart of `istioctl ztunnel-config --file`. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parse } from 'yaml';
import { culvert, DUMP, fakeAgent } from './cli-fixture.ts';

const folder = mkdtempSync(join(tmpdir(), 'culvert-dump-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const workloadState = {
  'pod-2': {
    state: 'Up',
    info: { name: 'shop-1', namespace: 'retail', serviceAccount: 'shop' },
    connections: {
      inbound: [{ src: '10.42.2.9:40000', originalDst: null, actualDst: '10.42.1.7:80', protocol: 'TCP' }],
      outbound: [
        { src: '10.42.1.7:51840', originalDst: '10.96.0.12:80', actualDst: '10.42.2.9:15008', protocol: 'HBONE' },
      ],
    },
  },
  'pod-1': {
    state: 'Up',
    info: { name: 'dns', namespace: 'infra', serviceAccount: 'dns' },
    connections: {
      inbound: [{ src: '[fd00::7]:1', originalDst: 'dns.infra', actualDst: '[fd00::8]:53', protocol: 'HBONE' }],
      outbound: [],
    },
  },
  'pod-3': { state: 'Pending', info: { name: 'late', namespace: 'retail', serviceAccount: 'late' } },
};

const whole = { ...DUMP, workloadState, config: { localNode: 'n1' } };
const file = join(folder, 'dump.json');
writeFileSync(file, JSON.stringify(whole));

async function shown(argv: readonly string[]): Promise<string> {
  const { code, out, err } = await culvert(argv);
  assert.deepEqual([code, err], [0, '']);
  return out;
}

for (const view of ['workloads', 'services', 'policies', 'certificates'] as const) {
  test(`${view} of a file are what the agent that wrote it shows`, async () => {
    await using agent = await fakeAgent({ '/config_dump': whole });
    for (const form of ['table', 'short', 'json', 'yaml']) {
      const { out } = await agent.ask([view, '--output', form]);
      assert.equal(await shown([view, '-f', file, '--output', form]), out);
    }
  });
}

for (const [what, content] of [
  ['a list', [1, 2]],
  ['an answer of another path', { node: 'n1', pods: [], isReady: true }],
  ['a dump of Envoy', { configs: [{ '@type': 'type.googleapis.com/envoy.admin.v3.BootstrapConfigDump' }] }],
] as const) {
  test(`${what} is refused, not shown as a mesh without policies`, async () => {
    const other = join(folder, 'other.json');
    writeFileSync(other, JSON.stringify(content));
    await using agent = await fakeAgent({ '/config_dump': content });
    for (const { code, out, err } of [await culvert(['policies', '-f', other]), await agent.ask(['policies'])]) {
      assert.deepEqual([code, out], [1, '']);
      assert.match(err, /(other\.json|answered \/config_dump) has none of workloads, .*ask an agent for it/);
    }
  });
}

test('the short form has the columns of istioctl and no more', async () => {
  assert.equal(
    await shown(['policies', '-f', file, '-o', 'short']),
    `NAMESPACE   POLICY NAME   ACTION   SCOPE
infra       odd           Deny     WorkloadSelector
infra       try           Allow    Global
retail      no-9999       Deny     Namespace
`,
  );
});

test('connections of a file have the columns of istioctl, by namespace and name; what was dialled inbound is not mapped', async () => {
  assert.equal(
    await shown(['connections', '-f', file]),
    `WORKLOAD        DIRECTION   LOCAL                 REMOTE                REMOTE TARGET                      PROTOCOL
dns.infra       inbound     [fd00::8]:53          [fd00::7]:1           dns.infra                          HBONE
shop-1.retail   inbound     shop-1.retail:80      cart-0.retail:40000                                      TCP
shop-1.retail   outbound    shop-1.retail:51840   cart-0.retail:15008   cart.retail.svc.cluster.local:80   HBONE
`,
  );
});

test('connections of a file can be filtered, shown raw, and printed as data', async () => {
  assert.equal(
    await shown(['cons', '-f', file, '--raw', '--direction', 'outbound', '--workload-namespace', 'retail']),
    `WORKLOAD        DIRECTION   LOCAL             REMOTE            REMOTE TARGET   PROTOCOL
shop-1.retail   outbound    10.42.1.7:51840   10.42.2.9:15008   10.96.0.12:80   HBONE
`,
  );
  const parsed: unknown = JSON.parse(await shown(['connections', '-f', file, '-n', 'infra', '-o', 'json']));
  assert.deepEqual(parsed, [
    {
      podUid: 'pod-1',
      workload: 'dns',
      namespace: 'infra',
      direction: 'inbound',
      src: '[fd00::7]:1',
      originalDst: 'dns.infra',
      actualDst: '[fd00::8]:53',
      protocol: 'HBONE',
    },
  ]);
  assert.equal(await shown(['connections', '-f', file, '-n', 'nowhere']), 'No open connections.\n');
});

const aliases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['workloads', ['w', '--workload-namespace', 'retail', '--workload-node', 'n2'], ['-n', 'retail', '--node', 'n2']],
  ['services', ['svc', '--service-namespace', 'retail'], ['-n', 'retail']],
  ['policies', ['pol', '--policy-namespace', 'infra'], ['-n', 'infra']],
  ['certificates', ['certs'], []],
];

for (const [name, known, ours] of aliases) {
  test(`${known.join(' ')} is ${[name, ...ours].join(' ')}`, async () => {
    const expected = await shown([name, '-f', file, ...ours]);
    assert.equal(await shown([...known, '-f', file]), expected);
  });
}

test('all prints the five tables, with headings when asked', async () => {
  const parts = await Promise.all(
    ['workloads', 'services', 'policies', 'certificates', 'connections'].map((view) => shown([view, '-f', file])),
  );
  assert.equal(await shown(['all', '-f', file]), parts.join('\n'));
  const headings = ['Workloads', 'Services', 'Policies', 'Certificates', 'Connections'];
  const withHeadings = parts.map((text, index) => `${headings[index]}:\n${text}`);
  assert.equal(await shown(['all', '-f', file, '--with-headers']), withHeadings.join('\n'));
});

test('all as JSON or YAML is the whole dump, whatever is in it', async () => {
  assert.deepEqual(JSON.parse(await shown(['all', '-f', file, '-o', 'json'])), whole);
  assert.deepEqual(parse(await shown(['all', '-f', file, '-o', 'yaml'])), whole);
});

test('a dump of an older ztunnel is read: maps for lists, and the root at the end of the chain', async () => {
  const old = join(folder, 'old.json');
  const [{ rootCerts, ...certificate }] = DUMP.certificates;
  const certChain = [...certificate.certChain, ...rootCerts];
  const policies = Object.fromEntries(DUMP.policies.map((policy) => [`${policy.namespace}/${policy.name}`, policy]));
  writeFileSync(old, JSON.stringify({ policies, certificates: [{ ...certificate, certChain }] }));
  assert.equal(await shown(['policies', '-f', old]), await shown(['policies', '-f', file]));
  const types = (await shown(['certificates', '-f', old])).split('\n').map((line) => line.split(/ {2,}/)[1]);
  assert.deepEqual(types, ['TYPE', 'Leaf', 'Intermediate', 'Root', undefined]);
});

test('a dump is read from standard input', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['src/cli/main.ts', 'services', '--file', '-'], {
    input: JSON.stringify(whole),
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^retail +cart +10\.96\.0\.12 +waypoint +1\/2$/m);
});

test('a file that is missing or no JSON is a failure that names it and the cure', async () => {
  const missing = await culvert(['workloads', '-f', join(folder, 'nothing.json')]);
  assert.deepEqual([missing.code, missing.out], [1, '']);
  assert.match(missing.err, /^culvert: cannot read .*nothing\.json: ENOENT/);
  const html = join(folder, 'page.html');
  writeFileSync(html, '<html>');
  const wrong = await culvert(['workloads', '-f', html]);
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /page\.html is not JSON, so it is not a config_dump; save one with: curl /);
});
