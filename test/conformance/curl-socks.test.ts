/** curl as a SOCKS5 client inside a captured pod. */
import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { newCurl, skipWithoutNewCurl } from '../support/curl.ts';
import { identityOf, meshForFile } from '../support/mesh.ts';
import { ResolvConf } from '../support/mesh-dns.ts';
import { dial } from '../support/mesh-traffic.ts';
import { skipWithoutRoot } from '../support/netns.ts';

const privileged = { skip: skipWithoutRoot || skipWithoutNewCurl, timeout: 60_000 };
const VIP = '10.96.0.40';
const WEB = 'web.demo.svc.cluster.local';
/** CURLE_PROXY: the SOCKS server said no. */
const EXIT_PROXY = 97;
const resolvConf = new ResolvConf();
resolvConf.write(['nameserver 10.99.99.99']);

const mesh = meshForFile({
  nodes: { n1: ['client'], n2: ['server', 'outside'] },
  env: { ...resolvConf.env, UNSTABLE_ENABLE_SOCKS5: 'true' },
  mesh: (started) => ({
    services: [{ name: 'web', namespace: 'demo', hostname: WEB, vips: [`/${VIP}`], ports: { 80: 8080 } }],
    workloads: started.workloads({ server: { services: { [`demo/${WEB}`]: { 80: 8080 } } } }),
  }),
});

const application = http.createServer((request, response) => {
  response.end(`${request.headers.host} for ${request.socket.remoteAddress?.replace('::ffff:', '')}`);
});

async function curl(...args: readonly string[]) {
  const argv = [newCurl ?? 'curl', '-sSv', '--max-time', '30', ...args];
  const { code, stdout, stderr } = await mesh().pod('client').inside.exec(argv);
  return { code, body: stdout, said: stderr };
}

const wishes = [
  ['the address of a service', '--socks5', VIP],
  ['the host name of a service', '--socks5-hostname', WEB],
] as const;

for (const [what, flag, host] of wishes) {
  test(`curl that asks its pod’s SOCKS server for ${what} is carried through HBONE`, privileged, async () => {
    const mark = mesh().agent('n1').lines.length;
    using _app = mesh().serve('server', 8080, (socket) => void application.emit('connection', socket));
    const { code, body, said } = await curl(flag, '127.0.0.1:15080', `http://${host}/`);
    assert.equal(code, 0, said);
    assert.equal(body, `${host} for ${mesh().pod('client').ip}`);
    const line = await mesh()
      .agent('n1')
      .access('outbound', { 'dst.addr': `${mesh().pod('server').ip}:15008` }, mark);
    assert.deepEqual(
      [line['src.identity'], line['dst.identity'], line['dst.service'], line['error']],
      [identityOf('client'), identityOf('server'), WEB, undefined],
    );
  });
}

test('curl is told why it is not connected', privileged, async () => {
  const refused = await curl('--socks5', '127.0.0.1:15080', `http://${VIP}:81/`);
  assert.equal(refused.code, EXIT_PROXY);
  assert.match(refused.said, /\(4\)|[Hh]ost unreachable/);
  const own = await curl('--socks5', '127.0.0.1:15080', 'http://127.0.0.1:15080/');
  assert.equal(own.code, EXIT_PROXY);
  assert.match(own.said, /\(2\)|[Nn]ot allowed/);
});

test('the SOCKS server of a pod is for the pod alone', privileged, async () => {
  using client = await dial(mesh(), 'outside', { ip: mesh().pod('server').ip, port: 15_080 });
  client.socket.write(Buffer.from([5, 1, 0]));
  assert.equal(await client.ended(), 'reset');
  assert.equal(client.bytes, 0);
  const line = await mesh()
    .agent('n2')
    .line(({ reason }) => reason === 'CV-SELF-CALL', 'refused self-call');
  assert.equal(line['direction'], 'inbound');
});
