import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import {
  deletionScript,
  isInterfaceName,
  ourTables,
  redirectScript,
  releaseScript,
} from '../../../src/capture/redirect-rules.ts';
import { anyText } from '../../support/any-text.ts';

const dual = { ipv4: true, ipv6: true, isIngressMode: false, rerouteInterfaces: [], dnsCapture: false };

const FRESH = `add table inet istio-ambient-nat
delete table inet istio-ambient-nat
add table inet istio-ambient-mangle
delete table inet istio-ambient-mangle
add table inet istio-ambient-raw
delete table inet istio-ambient-raw
`;

function chain(script: string, name: string): string[] {
  const [, lines = ''] = new RegExp(`chain ${name} \\{\n([^}]*)\\}`).exec(script) ?? [];
  return lines
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

const MANGLE = `table inet istio-ambient-mangle {
	chain istio-prerouting {
		meta mark and 0xfff == 0x539 ct direction original counter ct mark set ct mark and 0xfffff000 or 0x111
	}
	chain istio-output {
		ct direction reply ct mark and 0xfff == 0x111 counter meta mark set ct mark
	}
	chain prerouting {
		type filter hook prerouting priority -150; policy accept;
		jump istio-prerouting
	}
	chain output {
		type route hook output priority -150; policy accept;
		jump istio-output
	}
}
`;

const NAT_BASE = `	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		jump istio-prerouting
	}
	chain output {
		type nat hook output priority -100; policy accept;
		jump istio-output
	}
}
`;

test('a dual-stack pod gets exactly these rules', () => {
  assert.equal(
    redirectScript(dual),
    `${FRESH}table inet istio-ambient-nat {
	chain istio-prerouting {
		meta l4proto tcp ip saddr 169.254.7.127 counter accept
		meta l4proto tcp ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff counter accept
		ip daddr != 127.0.0.1/32 tcp dport != 15008 meta mark and 0xfff != 0x539 counter redirect to :15006
		ip6 daddr != ::1/128 tcp dport != 15008 meta mark and 0xfff != 0x539 counter redirect to :15006
	}
	chain istio-output {
		meta l4proto tcp ip daddr 169.254.7.127 counter accept
		meta l4proto tcp ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff counter accept
		meta l4proto tcp meta mark and 0xfff == 0x111 counter accept
		oifname "lo" ip daddr != 127.0.0.1/32 counter accept
		oifname "lo" ip6 daddr != ::1/128 counter accept
		meta l4proto tcp ip daddr != 127.0.0.1/32 meta mark and 0xfff != 0x539 counter redirect to :15001
		meta l4proto tcp ip6 daddr != ::1/128 meta mark and 0xfff != 0x539 counter redirect to :15001
	}
${NAT_BASE}${MANGLE}`,
  );
});

test('ingress mode with a guest interface, IPv4 only, DNS captured, gets exactly these rules', () => {
  assert.equal(
    redirectScript({ ipv4: true, ipv6: false, isIngressMode: true, rerouteInterfaces: ['tap0'], dnsCapture: true }),
    `${FRESH}table inet istio-ambient-nat {
	chain istio-prerouting {
		iifname "tap0" meta l4proto tcp counter redirect to :15001
		iifname "tap0" meta l4proto tcp counter return
	}
	chain istio-output {
		meta l4proto tcp ip daddr 169.254.7.127 counter accept
		oifname != "lo" meta mark and 0xfff != 0x539 udp dport 53 counter redirect to :15053
		ip daddr != 127.0.0.1/32 tcp dport 53 meta mark and 0xfff != 0x539 counter redirect to :15053
		meta l4proto tcp meta mark and 0xfff == 0x111 counter accept
		oifname "lo" ip daddr != 127.0.0.1/32 counter accept
		meta l4proto tcp ip daddr != 127.0.0.1/32 meta mark and 0xfff != 0x539 counter redirect to :15001
	}
${NAT_BASE}${MANGLE}table inet istio-ambient-raw {
	chain istio-prerouting {
		udp sport 53 meta mark and 0xfff != 0x539 counter ct zone set 1
	}
	chain istio-output {
		udp dport 53 meta mark and 0xfff == 0x539 counter ct zone set 1
	}
	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		jump istio-prerouting
	}
	chain output {
		type filter hook output priority -300; policy accept;
		jump istio-output
	}
}
`,
  );
});

test('deletion names every table that redirection can make', () => {
  assert.equal(deletionScript(), FRESH);
});

test('release empties the redirecting chains and nothing else', () => {
  assert.equal(
    releaseScript(),
    `add table inet istio-ambient-nat
add chain inet istio-ambient-nat istio-prerouting
flush chain inet istio-ambient-nat istio-prerouting
add chain inet istio-ambient-nat istio-output
flush chain inet istio-ambient-nat istio-output
`,
  );
});

test('each family appears only when asked for', () => {
  const v4 = redirectScript({ ...dual, ipv6: false });
  const v6 = redirectScript({ ...dual, ipv4: false });
  assert.doesNotMatch(v4, /ip6|::1/);
  assert.doesNotMatch(v6, /\bip (saddr|daddr)\b|127\.0\.0\.1/);
});

test('no text whatever in an interface name adds a word to the script', () => {
  const wild = fc.oneof(fc.string({ maxLength: 24 }), anyText({ maxLength: 24 }));
  fc.assert(
    fc.property(wild, (name) => {
      if (!isInterfaceName(name)) {
        assert.throws(() => redirectScript({ ...dual, rerouteInterfaces: [name] }), MeshError);
        return;
      }
      const script = redirectScript({ ...dual, rerouteInterfaces: [name] });
      assert.equal(script.replaceAll(`"${name}"`, '"X"'), redirectScript({ ...dual, rerouteInterfaces: ['X'] }));
    }),
  );
});

for (const name of ['', 'eth*', 'a"b', 'a b', 'x\n', '../x', '-x', 'sixteen-letters-', 'lo;', 'ä', '@x']) {
  test(`${JSON.stringify(name)} is refused as an interface name`, () => {
    assert.equal(isInterfaceName(name), false);
  });
}

for (const name of ['eth0', 'br-1234567890ab', 'tap0.100', 'k6t_eth0']) {
  test(`${name} is taken as an interface name`, () => assert.equal(isInterfaceName(name), true));
}

test('our tables are picked out of a listing, others are not, and order does not matter', () => {
  const nat = 'table inet istio-ambient-nat {\n\tchain a {\n\t}\n}\n';
  const mangle = 'table inet istio-ambient-mangle {\n}\n';
  const other = 'table inet other {\n\tchain table {\n\t}\n}\n';
  assert.equal(ourTables(`${other}${mangle}${other}${nat}`), nat + mangle);
  assert.equal(ourTables(other), '');
  assert.equal(ourTables('table inet istio-ambient-nat-old {\n}\n'), '');
});

test('what is the agent’s own in the pod is let pass before anything is redirected, in both directions', () => {
  const exempt = { gid: 1337, ports: [15_020, 15_021] };
  const script = redirectScript({ ...dual, dnsCapture: true, exempt });
  const without = redirectScript({ ...dual, dnsCapture: true });
  assert.deepEqual(chain(script, 'istio-output'), [
    'meta skgid 1337 counter accept',
    ...chain(without, 'istio-output'),
  ]);
  assert.deepEqual(chain(script, 'istio-prerouting'), [
    'tcp dport 15020 counter accept',
    'tcp dport 15021 counter accept',
    ...chain(without, 'istio-prerouting'),
  ]);
});
