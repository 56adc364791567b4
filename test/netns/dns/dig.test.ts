/** DNS of a captured pod, asked by `dig` over both transports and both families. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { decode, encode } from 'dns-packet';
import { openNetns } from '../../../src/sys/netns.ts';
import type { LogLine } from '../../support/agent-process.ts';
import {
  type MeshOptions,
  type MeshRecord,
  meshForFile,
  replaceFile,
  type TestMesh,
  uidOf,
} from '../../support/mesh.ts';
import { askFrom, dig, ResolvConf } from '../../support/mesh-dns.ts';
import { metricsOf } from '../../support/metric-text.ts';
import { type Received, respond, TestNameserver } from '../../support/nameserver.ts';
import { skipWithoutRoot } from '../../support/netns.ts';

const privileged = { skip: skipWithoutRoot, timeout: 60_000 };
const DNS_PORT = 53;
const resolvConf = new ResolvConf();
const nameservers: TestNameserver[] = [];
const options: MeshOptions = {
  family: 'dual',
  nodes: { n1: ['client', 'free', 'four'], n2: ['outside'] },
  enrolled: ['client', 'free'],
  env: resolvConf.env,
  flags: ['--log-level', 'dns=debug,info'],
  mesh: (made) => {
    // The nameserver of the agent is known by now; one try of 3 s, for the sake of who waits for a silent one.
    resolvConf.write([`nameserver ${made.pod('outside').ip}`, 'options timeout:3 attempts:1']);
    return { services: SERVICES, workloads: made.workloads({ client: { services: { [HEADLESS_KEY]: {} } } }) };
  },
};
const mesh = meshForFile(options, async (made) => {
  using netns = openNetns(made.pod('outside').inside.path);
  for (const ip of made.pod('outside').ips) {
    nameservers.push(await TestNameserver.start({ ip, port: DNS_PORT }, netns));
  }
});

const HEADLESS_KEY = 'demo/headless.demo.svc.cluster.local';
const SERVICES: readonly MeshRecord[] = [
  service('web', 'demo', ['/10.96.0.1', '/fd96::1']),
  { ...service('four', 'demo', ['/10.96.0.2']), ipFamilies: 'IPv4' },
  service('nw2-only', 'demo', ['nw2/10.96.0.3']),
  service('headless', 'demo', []),
  service('example', 'other', ['/10.96.0.4']),
  { ...service('nslocal', 'other', ['/10.96.0.5']), visibility: 'Namespace' },
  { ...service('entry', 'demo', []), hostname: 'headless.example.com' },
  { ...service('wild', 'demo', ['/10.96.0.6']), hostname: '*.wildcard' },
  { ...service('wilder', 'demo', ['/10.96.0.7']), hostname: '*.b.wildcard' },
  service(
    'large',
    'demo',
    Array.from({ length: 256 }, (_, i) => `/10.97.0.${i}`),
  ),
];

function service(name: string, namespace: string, vips: readonly string[]): MeshRecord {
  return { name, namespace, hostname: `${name}.${namespace}.svc.cluster.local`, vips, ports: { 80: 8080 } };
}

after(async () => {
  for (const nameserver of nameservers) await nameserver[Symbol.asyncDispose]();
});

/** The nameserver that the agent asks. */
function nameserver(): TestNameserver {
  const [first] = nameservers;
  assert.ok(first !== undefined);
  return first;
}

function isFor(name: string): (query: Received) => boolean {
  return ({ bytes }) => decode(bytes).questions?.[0]?.name.toLowerCase() === name;
}

function NXDOMAIN({ bytes }: Received): Uint8Array {
  return respond(bytes, 3);
}

const OURS = 'qr aa rd ra';
/** RD and AD are the bits of dig's query, which the nameserver sends back. */
const THEIRS = 'qr rd ad';

/** name, type, status, flags, answers. */
const TABLE = [
  ['web.', 'A', 'NOERROR', OURS, ['web. A 10.96.0.1']],
  ['web.', 'AAAA', 'NOERROR', OURS, ['web. AAAA fd96::1']],
  ['WeB.dEmO.', 'A', 'NOERROR', OURS, ['WeB.dEmO. A 10.96.0.1']],
  ['web.demo.svc.cluster.local.', 'A', 'NOERROR', OURS, ['web.demo.svc.cluster.local. A 10.96.0.1']],
  [
    'web.demo.demo.svc.cluster.local.',
    'A',
    'NOERROR',
    OURS,
    ['web.demo. A 10.96.0.1', 'web.demo.demo.svc.cluster.local. CNAME web.demo.'],
  ],
  ['four.demo.', 'AAAA', 'NOERROR', OURS, []],
  ['web.demo.', 'NS', 'NXDOMAIN', THEIRS, []],
  ['foo.wildcard.', 'A', 'NOERROR', OURS, ['foo.wildcard. A 10.96.0.6']],
  ['a.b.wildcard.', 'A', 'NOERROR', OURS, ['a.b.wildcard. A 10.96.0.7']],
  ['example.', 'A', 'NXDOMAIN', THEIRS, []],
  ['example.other.', 'A', 'NOERROR', OURS, ['example.other. A 10.96.0.4']],
  ['nw2-only.demo.svc.cluster.local.', 'A', 'NOERROR', OURS, []],
  ['headless.example.com.', 'A', 'NXDOMAIN', THEIRS, []],
  ['nslocal.other.svc.cluster.local.', 'A', 'NXDOMAIN', THEIRS, []],
  ['x.client.demo.svc.cluster.local.', 'A', 'NXDOMAIN', THEIRS, []],
] as const;

for (const transport of ['udp', 'tcp'] as const) {
  for (const family of [0, 1] as const) {
    test(
      `every worked example is answered as written over ${transport} and IPv${family === 0 ? 4 : 6}`,
      privileged,
      async () => {
        nameserver().script = NXDOMAIN;
        const server = mesh().pod('outside').ips[family] ?? '';
        const options = [`@${server}`, transport === 'tcp' ? '+tcp' : '+notcp'];
        const questions = TABLE.flatMap(([name, type]) => [name, type]);
        const dug = await dig(mesh().pod('client'), ...options, ...questions);
        assert.deepEqual(
          dug.map(({ status, flags, answers }, i) => [...(TABLE[i] ?? []).slice(0, 2), status, flags, answers]),
          TABLE,
        );
      },
    );
  }
}

test('a headless service has the addresses of its endpoints, in each family', privileged, async () => {
  const [ip4, ip6] = mesh().pod('client').ips;
  const dug = await dig(mesh().pod('client'), `@${mesh().pod('outside').ip}`, 'headless.', 'A', 'headless.', 'AAAA');
  assert.deepEqual(
    dug.map(({ answers }) => answers),
    [[`headless. A ${ip4}`], [`headless. AAAA ${ip6}`]],
  );
});

test('256 addresses make dig ask again over TCP, where all of them are', privileged, async () => {
  const [dug] = await dig(mesh().pod('client'), `@${mesh().pod('outside').ip}`, 'large.', 'A');
  assert.equal(dug?.answers.length, 256);
});

for (const family of [0, 1] as const) {
  test(
    `what is not ours passes octet for octet over IPv${family === 0 ? 4 : 6}, in the name of the pod`,
    privileged,
    async () => {
      const { ips, ip } = mesh().pod('client');
      const query = Buffer.concat([
        encode({
          type: 'query',
          id: 0xabcd,
          flags: 0x0130,
          questions: [{ name: 'ExAmPlE.cOm', type: 'A', class: 'CH' }],
        }),
        Buffer.from('whatever the client puts behind its question'),
      ]);
      const reply = respond(query, 0x0480, Buffer.from('and the nameserver behind it'));
      nameserver().received.length = 0;
      nameserver().script = () => reply;
      const to = { ip: mesh().pod('outside').ips[family] ?? '', port: DNS_PORT };
      assert.deepEqual(await askFrom(mesh().pod('client'), to, query), Buffer.from(reply));
      assert.deepEqual(
        nameserver().received.map(({ bytes, from }) => [bytes.equals(query), from.ip]),
        [[true, ip]],
      );
      assert.equal(nameservers[1]?.received.length, 0, `asked by ${ips[family]}: the agent has one nameserver`);
    },
  );
}

test('the truncation bit sends dig to TCP, which reaches the nameserver as TCP', privileged, async () => {
  nameserver().received.length = 0;
  nameserver().script = ({ bytes, transport }) => {
    if (transport === 'udp') return respond(bytes, 0x0200);
    const { id, questions } = decode(bytes);
    const answers = Array.from({ length: 200 }, (_, i) => {
      return { type: 'A', name: 'big.example', ttl: 5, data: `10.1.0.${i}` } as const;
    });
    return encode({ type: 'response', id, flags: 0x0180, questions, answers });
  };
  const [dug] = await dig(mesh().pod('client'), `@${mesh().pod('outside').ip}`, 'big.example.', 'A');
  assert.equal(dug?.answers.length, 200);
  assert.deepEqual(
    nameserver().received.map(({ transport }) => transport),
    ['udp', 'tcp'],
  );
});

test('an answer of 4 KiB with EDNS passes over UDP', privileged, async () => {
  const text = Array.from({ length: 15 }, (_, i) => `${i}`.repeat(240).slice(0, 240));
  nameserver().received.length = 0;
  nameserver().script = ({ bytes }) => {
    const { id, questions } = decode(bytes);
    return encode({
      type: 'response',
      id,
      flags: 0x0180,
      questions,
      answers: [{ type: 'TXT', name: 'big.example', ttl: 5, data: text }],
    });
  };
  const args = ['+bufsize=4096', '+ignore', `@${mesh().pod('outside').ip}`, 'big.example.', 'TXT'];
  const [dug] = await dig(mesh().pod('client'), ...args);
  assert.equal(dug?.answers[0], `big.example. TXT ${text.map((part) => `"${part}"`).join(' ')}`);
  assert.deepEqual(
    nameserver().received.map(({ transport }) => transport),
    ['udp'],
  );
});

test('a query that waits for a slow answer holds up no other', privileged, async () => {
  nameserver().script = (query) => (isFor('slow.example')(query) ? undefined : NXDOMAIN(query));
  const server = `@${mesh().pod('outside').ip}`;
  const slow = dig(mesh().pod('client'), server, '+tries=1', '+time=20', 'slow.example.', 'A');
  const { bytes, send } = await nameserver().query(isFor('slow.example'));
  const dug = await dig(mesh().pod('client'), server, 'web.', 'A', 'fast.example.', 'A', '+tcp', 'fast.example.', 'A');
  assert.deepEqual(
    dug.map(({ status }) => status),
    ['NOERROR', 'NXDOMAIN', 'NXDOMAIN'],
  );
  send(respond(bytes, 3));
  await slow;
});

test(
  'a silent nameserver is SERVFAIL in bounded time, said in log and metrics with its reason',
  privileged,
  async () => {
    const mark = mesh().agent('n1').lines.length;
    nameserver().script = () => undefined;
    const [dug] = await dig(
      mesh().pod('client'),
      `@${mesh().pod('outside').ip}`,
      '+tries=1',
      '+time=30',
      'silent.example.',
      'A',
    );
    assert.equal(dug?.status, 'SERVFAIL');
    const line = await mesh()
      .agent('n1')
      .line(({ domain }) => domain === 'silent.example.', 'log line of the query', mark);
    assert.equal(line['reason'], 'CV-DNS-TIMEOUT');
    assert.match(String(line['result']), /^forwarding failed \(no answer from /);
    const metric = await metricsOf(mesh().agent('n1'));
    assert.ok(metric('culvert_dns_refusals_total', { reason: 'CV-DNS-TIMEOUT' }) >= 1);
  },
);

test(
  'a pod that may not reach the nameserver gets SERVFAIL at once, with the word of the kernel',
  privileged,
  async () => {
    const { inside } = mesh().pod('free');
    // As a NetworkPolicy inside the pod would: what the agent sends for this pod is dropped on its way out.
    const rules =
      'add table inet blocked; add chain inet blocked out { type filter hook output priority 0; }; add rule inet blocked out meta mark 0x539 meta l4proto { tcp, udp } th dport 53 drop';
    assert.equal((await inside.exec(['nft', rules])).code, 0);
    nameserver().received.length = 0;
    const mark = mesh().agent('n1').lines.length;
    const [dug, other] = await dig(
      mesh().pod('free'),
      `@${mesh().pod('outside').ip}`,
      'denied.example.',
      'A',
      'web.',
      'A',
    );
    await inside.exec(['nft', 'delete', 'table', 'inet', 'blocked']);
    assert.deepEqual([dug?.status, other?.status], ['SERVFAIL', 'NOERROR']);
    const line = await mesh()
      .agent('n1')
      .line(({ domain }) => domain === 'denied.example.', 'log line of the query', mark);
    assert.deepEqual([line['reason'], line['src.workload']], ['CV-DNS-UNREACHABLE', 'free']);
    assert.match(String(line['result']), /EPERM/);
    assert.equal(nameserver().received.length, 0);
  },
);

/** Datagrams with any source, from a raw socket: what root in a pod can do. */
const RAW = `
import socket, struct, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
query = bytes.fromhex(sys.argv[1])
for source in (0, 15053):
    raw.bind(('127.0.0.1', 0))
    raw.sendto(struct.pack('!HHHH', source, 15053, 8 + len(query), 0) + query, ('127.0.0.1', 0))
`;

test('datagrams that claim to come from port 0, or from the proxy itself, do no harm', privileged, async () => {
  const agent = mesh().agent('n1');
  const mark = agent.lines.length;
  const query = encode({ type: 'query', id: 1, questions: [{ name: 'web.demo', type: 'A' }] });
  const { code, stderr } = await mesh()
    .pod('client')
    .inside.exec(['python3', '-c', RAW, query.toString('hex')]);
  assert.equal(code, 0, stderr);
  const [dug] = await dig(mesh().pod('client'), `@${mesh().pod('outside').ip}`, 'web.demo.', 'A');
  assert.deepEqual(dug?.answers, ['web.demo. A 10.96.0.1']);
  // All three were answered; the answer to itself came back as a response, and ended there.
  let [answered, refused] = [0, 0];
  const isLast = (line: LogLine): boolean => {
    if (line['result'] === 'success') answered += 1;
    if (line['reason'] === 'CV-WIRE-MALFORMED') refused += 1;
    return answered === 3 && refused === 1;
  };
  await agent.line(isLast, 'line of the last of four messages', mark);
  assert.deepEqual([answered, refused], [3, 1]);
  assert.deepEqual(
    agent.lines.filter(({ level }) => level === 'error'),
    [],
  );
});

test('a query is logged and counted in the words of the reference', privileged, async () => {
  const agent = mesh().agent('n1');
  const labels = { request_query_type: 'aaaa', request_protocol: 'tcp', source_canonical_service: 'client' };
  const counted = async () => (await metricsOf(agent))('istio_dns_requests_total', labels);
  const [before, mark] = [await counted(), agent.lines.length];
  await dig(mesh().pod('client'), '+tcp', `@${mesh().pod('outside').ip}`, 'web.demo.', 'AAAA');
  const isIt = (line: LogLine): boolean => line['query'] === 'AAAA' && line['domain'] === 'web.demo.';
  const line = await agent.line(isIt, 'log line of the query', mark);
  assert.deepEqual(
    ['level', 'src.workload', 'src.namespace', 'query', 'domain', 'result', 'endpoints'].map((key) => line[key]),
    ['debug', 'client', 'demo', 'AAAA', 'web.demo.', 'success', 1],
  );
  assert.equal(await counted(), before + 1);
});

/** The list of pods of n1, `options` for one of them. */
function enrol(made: TestMesh, names: readonly string[], name: string, options: MeshRecord): void {
  const pods = names.map((each) => ({ ...made.podRecord(each), ...(each === name ? options : {}) }));
  replaceFile(made.podsFile('n1'), JSON.stringify({ pods }));
}

test(
  'a pod that wants its DNS left alone talks to its nameserver itself, and changes its mind as it runs',
  privileged,
  async () => {
    const ask = async () =>
      (await dig(mesh().pod('free'), `@${mesh().pod('outside').ip}`, 'web.demo.', 'A'))[0]?.status;
    const hasRules = async () =>
      (await mesh().pod('free').inside.exec(['nft', 'list', 'ruleset'])).stdout.includes('15053');
    nameserver().script = NXDOMAIN;
    assert.equal(await ask(), 'NOERROR');
    enrol(mesh(), ['client', 'free'], 'free', { dnsCapture: false });
    while (await hasRules());
    assert.equal(await ask(), 'NXDOMAIN');
    enrol(mesh(), ['client', 'free'], 'free', {});
    while (!(await hasRules()));
    assert.equal(await ask(), 'NOERROR');
    const restarts = mesh()
      .agent('n1')
      .lines.filter(({ message, uid }) => message === 'pod captured' && uid === uidOf('free'));
    assert.equal(restarts.length, 1);
  },
);

test('a pod without IPv6 on loopback has listeners on IPv4 only, the others on both', privileged, async () => {
  const four = mesh().pod('four');
  four.inside.sysctl({ 'ipv6/conf/lo/disable_ipv6': '1' });
  enrol(mesh(), ['client', 'free', 'four'], 'four', {});
  await mesh().captured('four');
  const listeners = async (name: string) => {
    const { stdout } = await mesh().pod(name).inside.exec(['ss', '-Hlntu', 'sport', '=', ':15053']);
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(/\s+/))
      .map(([protocol, , , , local]) => `${protocol} ${local}`)
      .toSorted();
  };
  assert.deepEqual(await listeners('four'), ['tcp 127.0.0.1:15053', 'udp 127.0.0.1:15053']);
  assert.deepEqual(await listeners('client'), [
    'tcp 127.0.0.1:15053',
    'tcp [::1]:15053',
    'udp 127.0.0.1:15053',
    'udp [::1]:15053',
  ]);
  const [dug] = await dig(four, `@${mesh().pod('outside').ip}`, 'web.demo.', 'A');
  assert.deepEqual(dug?.answers, ['web.demo. A 10.96.0.1']);
});
