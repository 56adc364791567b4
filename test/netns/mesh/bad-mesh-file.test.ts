import assert from 'node:assert/strict';
import { renameSync } from 'node:fs';
import { test } from 'node:test';
import { type MeshRecord, meshForFile, replaceFile } from '../../support/mesh.ts';
import { ask, naming } from '../../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const mesh = meshForFile({ nodes: { n1: ['client'], n2: ['server'], n3: ['outside'] } });

const POLICY = { name: 'p', namespace: 'demo', scope: 'Namespace', action: 'Deny', dryRun: false };
const SERVICE = { name: 'web', namespace: 'demo', hostname: 'web.demo.svc.cluster.local', vips: ['/10.96.0.1'] };

interface Mistake {
  readonly name: string;
  /** The file as text, or records to put beside the good ones. */
  readonly text?: string;
  readonly document?: () => MeshRecord;
  /** Also tried at start; the others would only take the same way again. */
  readonly isTriedAtStart?: true;
  /** What the error must say: the field, what is wrong, and the cure. */
  readonly says: readonly RegExp[];
}

const MISTAKES: readonly Mistake[] = [
  {
    name: 'a syntax error',
    isTriedAtStart: true,
    text: 'workloads:\n- {name: a\nservices: []\n',
    says: [/mesh\.json:3:\d+: /, /correct the YAML/],
  },
  {
    name: 'an unknown field',
    document: () => ({ workloads: [mesh().workload('client', { protocl: 'HBONE' })] }),
    says: [/workloads\[0\]/, /protocl/],
  },
  {
    name: 'an unknown field at the top',
    document: () => ({ workload: [] }),
    says: [/workload/, /unknown|not known/],
  },
  {
    name: 'two workloads with one UID',
    isTriedAtStart: true,
    document: () => ({
      workloads: [
        mesh().workload('client', { uid: 'twice', workloadIps: ['10.9.9.1'] }),
        mesh().workload('server', { uid: 'twice', workloadIps: ['10.9.9.2'] }),
      ],
    }),
    says: [/workloads\[1\]/, /twice/, /first at \d+:\d+/],
  },
  {
    name: 'the CIDR 10.0.0.0/33',
    document: () => ({ policies: [{ ...POLICY, rules: [[[{ sourceIps: ['10.0.0.0/33'] }]]] }] }),
    says: [/policies\[0\]\.rules\[0\]\[0\]\[0\]\.sourceIps\[0\]/, /"10\.0\.0\.0\/33"/, /0\.\.32/],
  },
  {
    name: 'the port 70000',
    document: () => ({ services: [{ ...SERVICE, ports: { 70000: 8080 } }] }),
    says: [/services\[0\]\.ports/, /70000/, /65535/],
  },
  {
    name: 'the target port 70000',
    document: () => ({ policies: [{ ...POLICY, rules: [[[{ destinationPorts: [70000] }]]] }] }),
    says: [/destinationPorts\[0\]/, /70000/, /65535/],
  },
  {
    name: 'a waypoint that does not exist',
    isTriedAtStart: true,
    document: () => ({
      services: [
        {
          ...SERVICE,
          ports: {},
          waypoint: { destination: 'infra/nowhere.infra.svc.cluster.local', hboneMtlsPort: 15008 },
        },
      ],
    }),
    says: [/services\[0\]\.waypoint/, /nowhere\.infra\.svc\.cluster\.local/],
  },
  { name: 'an empty file', text: '', says: [/empty/, /workloads: \[\]/] },
  { name: 'a control character', text: '\u0000\u0001', says: [/mesh\.json/] },
];

for (const { name, text, document, says, isTriedAtStart } of MISTAKES) {
  test(
    `${name} in the mesh file: refused whole with its place and the cure, and the last good mesh stays`,
    privileged,
    async () => {
      await mesh().update({ policies: [] });
      using _app = mesh().serve('server', 8080, naming('server'));
      const bad = text ?? JSON.stringify({ workloads: [], ...document?.() }, undefined, 1);
      const [n1, n2] = [mesh().agent('n1'), mesh().agent('n2')];
      const marks = [n1, n2].map(({ lines }) => lines.length);

      replaceFile(mesh().meshFile, bad);

      for (const [i, agent] of [n1, n2].entries()) {
        const line = await agent.line(
          (found) => found.message === 'mesh file refused, the last good version stays',
          'refusal of the mesh file',
          marks[i],
        );
        assert.equal(line['reason'], 'CV-MESH-FILE');
        assert.match(String(line['error']), /mesh\.json:\d+:\d+: |mesh\.json: /);
        for (const part of says) assert.match(String(line['error']), part);
      }
      const answer = await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8080 });
      assert.match(answer, /^server sees/);
      const { body } = await n2.get('/metrics', 15_020);
      assert.match(body, /^culvert_mesh_file_loads_total\{result="failed"\} [1-9]/m);
    },
  );

  if (isTriedAtStart !== true) continue;
  test(`${name} in the mesh file at start: exit code 78, with the place and the cure`, privileged, async () => {
    replaceFile(mesh().meshFile, text ?? JSON.stringify({ workloads: [], ...document?.() }, undefined, 1));
    const agent = mesh().spawnAgent('n3');
    assert.equal(await agent.exited, 78);
    const said = agent.stderr.join('\n');
    assert.match(said, /CV-MESH-FILE/);
    for (const part of says) assert.match(said, part);
    mesh().write({});
  });
}

test('a mesh file that vanishes while the agent runs changes nothing', privileged, async () => {
  await mesh().update({});
  using _app = mesh().serve('server', 8081, naming('server'));
  const agent = mesh().agent('n2');
  const mark = agent.lines.length;
  renameSync(mesh().meshFile, `${mesh().meshFile}.away`);
  await agent.line((line) => line.message === 'mesh file refused, the last good version stays', 'refusal', mark);
  assert.match(await ask(mesh(), 'client', { ip: mesh().pod('server').ip, port: 8081 }), /^server/);
  await mesh().update({});
});
