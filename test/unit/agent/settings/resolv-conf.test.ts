import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseResolvConf } from '../../../../src/agent/settings/resolv-conf.ts';

test('what kubelet writes gives its nameserver and the defaults of libc', () => {
  const text = 'search ns1.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n';
  assert.deepEqual(parseResolvConf(text), {
    nameservers: [{ ip: '10.96.0.10', port: 53 }],
    timeoutMs: 5_000,
    attempts: 2,
  });
});

for (const [claim, text, ips] of [
  ['tabs, spaces and carriage returns separate', '  nameserver\t10.0.0.1 \r\n', ['10.0.0.1']],
  ['comments and other lines are ignored', '# nameserver 10.0.0.1\n;nameserver 10.0.0.2\nnameservers 10.0.0.3\n', []],
  ['IPv6 is canonical', 'nameserver FD00:0::1\n', ['fd00::1']],
  ['what is no address is ignored', 'nameserver dns.example\nnameserver\nnameserver fe80::1%eth0\n', []],
  [
    'a loopback resolver is not in the pod',
    'nameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\n',
    ['10.0.0.1'],
  ],
  [
    'three are enough',
    [1, 2, 3, 4].map((n) => `nameserver 10.0.0.${n}`).join('\n'),
    ['10.0.0.1', '10.0.0.2', '10.0.0.3'],
  ],
  ['nothing is nothing', '', []],
] as const) {
  test(`nameservers: ${claim}`, () => {
    assert.deepEqual(
      parseResolvConf(text).nameservers.map(({ ip }) => ip),
      ips,
    );
  });
}

for (const [claim, line, timeoutMs, attempts] of [
  ['are taken', 'options timeout:2 attempts:3', 2_000, 3],
  ['over those of libc are cut', 'options timeout:99 attempts:99', 30_000, 5],
  ['of zero are one', 'options timeout:0 attempts:0', 1_000, 1],
  ['that are no numbers are ignored', 'options timeout:soon attempts: timeout', 5_000, 2],
  ['given twice count the last time', 'options timeout:2\noptions edns0 timeout:3', 3_000, 2],
] as const) {
  test(`timeout and attempts ${claim}`, () => {
    const parsed = parseResolvConf(line);
    assert.deepEqual([parsed.timeoutMs, parsed.attempts], [timeoutMs, attempts]);
  });
}
