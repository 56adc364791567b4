import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StatusView } from '../../../src/agent/admin/views.ts';
import { createRedirection } from '../../../src/capture/redirect.ts';
import { linuxSys } from '../../../src/sys/linux.ts';
import { CNI_RULES } from '../../support/cni-agent.ts';
import { packet } from '../../support/cni-connection.ts';
import { identityOf, uidOf } from '../../support/mesh.ts';
import { cniMeshForFile } from '../../support/mesh-cni.ts';
import { ask, naming } from '../../support/mesh-traffic.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 120_000 };
const { mesh, cni, cniPod } = cniMeshForFile({
  nodes: { n1: ['client'], n2: ['server', 'late', 'bare'] },
  enrolled: ['client', 'server'],
});

function addressOf(pod: string, port: number) {
  return { ip: mesh().pod(pod).ip, port };
}

function rulesOf(pod: string): Promise<{ readonly stdout: string }> {
  return mesh().pod(pod).inside.exec(['nft', '-a', 'list', 'ruleset']);
}

test('pods of the snapshot talk through HBONE, and the agent is ready', privileged, async () => {
  using _app = mesh().serve('server', 8080, naming('server'));
  await mesh().ready('n1');
  await mesh().ready('n2');
  assert.equal(await ask(mesh(), 'client', addressOf('server', 8080)), `server sees ${mesh().pod('client').ip}\n`);
  const line = await mesh()
    .agent('n2')
    .access('inbound', { 'dst.hbone_addr': `${mesh().pod('server').ip}:8080` });
  assert.equal(line['src.identity'], identityOf('client'));
});

test(
  'a connection made right after the answer to an Add is served, in and out, each of ten times',
  privileged,
  async () => {
    using _late = mesh().serve('late', 8080, naming('late'));
    using _server = mesh().serve('server', 8081, naming('server'));
    for (let round = 0; round < 10; round += 1) {
      await cni('n2').enrol(cniPod('late'));
      const [inbound, outbound] = await Promise.all([
        ask(mesh(), 'client', addressOf('late', 8080)),
        ask(mesh(), 'late', addressOf('server', 8081)),
      ]);
      assert.equal(inbound, `late sees ${mesh().pod('client').ip}\n`);
      assert.equal(outbound, `server sees ${mesh().pod('late').ip}\n`);
      await cni('n2').unenrol(uidOf('late'));
    }
    const { stdout } = await rulesOf('late');
    assert.equal(stdout.includes('istio-ambient'), false, 'the CNI agent took its rules away');
  },
);

test(
  'the rules of the CNI agent are never written or removed by the agent: enrolled, restarted, deleted',
  privileged,
  async () => {
    await cni('n2').enrol(cniPod('late'));
    const before = await rulesOf('late');
    assert.match(before.stdout, /redirect to :15001/);

    const agent = mesh().agent('n2');
    agent.kill('SIGTERM');
    await agent.exited;
    assert.deepEqual(await rulesOf('late'), before);
    await mesh().startAgent('n2');
    await mesh().captured('late');
    assert.deepEqual(await rulesOf('late'), before);

    await cni('n2').unenrol(uidOf('late'), false);
    await mesh()
      .agent('n2')
      .line((line) => line.message === 'pod released', 'line that the pod is released');
    assert.deepEqual(await rulesOf('late'), before);
    await mesh().pod('late').inside.exec(['nft', 'flush', 'ruleset']);
  },
);

/** Resolves with what the agent of n2 shows of a pod once `isTrue` of it: looked at again after each of its log lines. */
async function podShown(pod: string, isTrue: (gaps: readonly string[]) => boolean): Promise<readonly string[]> {
  const agent = mesh().agent('n2');
  for (;;) {
    const from = agent.lines.length;
    const { pods } = JSON.parse((await agent.get('/status')).body) as StatusView;
    const shown = pods.find(({ uid }) => uid === uidOf(pod));
    const gaps = (shown?.notRedirected ?? []).map(({ direction }) => direction);
    if (shown !== undefined && isTrue(gaps)) return gaps;
    await agent.line((line) => line['uid'] === uidOf(pod), `line about ${pod}`, from);
  }
}

test(
  'an enrolled pod that is not redirected is said to be, shown and counted, once for each change',
  privileged,
  async () => {
    const agent = mesh().agent('n2');
    const from = agent.lines.length;
    const bare = mesh().pod('bare').inside;
    const rules = createRedirection(linuxSys);
    using netns = linuxSys.openNetns(bare.path);
    const said = (message: RegExp) =>
      agent.lines.slice(from).filter((line) => line['uid'] === uidOf('bare') && message.test(line.message)).length;
    const counted = async (direction: string) => (await metricsOf(agent))('culvert_pods_not_redirected', { direction });

    // As a CNI agent that failed to write rules, and told the pod all the same.
    await cni('n2').newest?.send(packet({ kind: 'add', uid: uidOf('bare'), workload: cniPod('bare') }, netns.fd));
    assert.deepEqual(await podShown('bare', (gaps) => gaps.length > 0), ['outbound', 'inbound']);
    assert.deepEqual([await counted('outbound'), await counted('inbound'), await counted('return')], [1, 1, 0]);

    await rules.apply(netns, CNI_RULES);
    assert.deepEqual(await podShown('bare', (gaps) => gaps.length === 0), []);
    assert.deepEqual([await counted('outbound'), await counted('inbound')], [0, 0]);

    await bare.exec(['nft', 'flush', 'ruleset']);
    await podShown('bare', (gaps) => gaps.length === 2);
    await bare.exec(['nft', 'add', 'table', 'inet', 'of-somebody-else']);
    await rules.apply(netns, CNI_RULES);
    await podShown('bare', (gaps) => gaps.length === 0);
    assert.deepEqual([said(/goes past us/), said(/^pod captured/)], [2, 2]);
    assert.equal((await bare.exec(['nft', 'list', 'ruleset'])).stdout.includes('of-somebody-else'), true);
    await cni('n2').unenrol(uidOf('bare'));
  },
);
