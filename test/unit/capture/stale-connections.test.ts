import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHostPort } from '../../../src/base/ip.ts';
import { staleConnections } from '../../../src/capture/stale-connections.ts';
import type { TcpSocket } from '../../../src/sys/sys.ts';

const POD = '10.0.0.1';
const AGENT = 0x539;

function socket(local: string, peer: string, mark = 0): TcpSocket {
  const [from, to] = [parseHostPort(local), parseHostPort(peer)];
  assert(from !== undefined && to !== undefined);
  return { local: from, peer: to, isListener: false, mark, inode: 0, family: 2, id: new Uint8Array(48) };
}

function listener(local: string): TcpSocket {
  return { ...socket(local, '0.0.0.0:0'), isListener: true };
}

const cases: readonly { readonly name: string; readonly sockets: TcpSocket[]; readonly stale: number }[] = [
  { name: 'outbound from before is stale', sockets: [socket(`${POD}:40000`, '10.0.0.2:80')], stale: 1 },
  {
    name: 'inbound from before is stale, also while the agent carries another one to the same application',
    sockets: [
      socket(`${POD}:80`, '10.0.0.2:40000'),
      socket(`${POD}:80`, '10.0.0.2:40001'),
      socket('10.0.0.2:40001', `${POD}:80`, AGENT),
    ],
    stale: 1,
  },
  {
    name: 'captured outbound is kept',
    sockets: [socket(`${POD}:40000`, '10.0.0.2:80'), socket('127.0.0.1:15001', `${POD}:40000`, AGENT)],
    stale: 0,
  },
  {
    name: 'captured outbound over IPv6 is kept',
    sockets: [socket('[fd00::1]:40000', '[fd00::2]:80'), socket('[::1]:15001', '[fd00::1]:40000', AGENT)],
    stale: 0,
  },
  {
    name: 'inbound through the agent with the source of the client is kept',
    sockets: [socket(`${POD}:80`, '10.0.0.2:41234'), socket('10.0.0.2:41234', `${POD}:80`, AGENT | 0x7000)],
    stale: 0,
  },
  {
    name: "the agent's own connections are kept",
    sockets: [socket(`${POD}:40000`, '10.0.0.2:15008', AGENT)],
    stale: 0,
  },
  {
    name: 'connections within the pod are kept',
    sockets: [
      socket('127.0.0.1:80', '127.0.0.1:40000'),
      socket('127.0.0.1:40000', '127.0.0.1:80'),
      socket(`${POD}:80`, `${POD}:40001`),
      socket(`${POD}:40001`, `${POD}:80`),
    ],
    stale: 0,
  },
  { name: 'a kubelet probe is kept', sockets: [socket(`${POD}:80`, '169.254.7.127:40000')], stale: 0 },
  { name: 'listeners are kept', sockets: [listener('0.0.0.0:80')], stale: 0 },
];

for (const { name, sockets, stale } of cases) {
  test(name, () => assert.equal(staleConnections(sockets, { isIngressMode: false }).length, stale));
}

test('in ingress mode what clients opened is kept and what the pod opened is stale', () => {
  const inbound = socket(`${POD}:80`, '10.0.0.9:40000');
  const outbound = socket(`${POD}:40000`, '10.0.0.2:80');
  assert.deepEqual(staleConnections([listener('0.0.0.0:80'), inbound, outbound], { isIngressMode: true }), [outbound]);
});
