import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Redirected, seenByIptables, seenByNft } from '../../../src/capture/redirect-seen.ts';

/** As nft 1.0.6 lists what this repository and istio-cni write, one family after the other. */
const NATIVE = `table inet istio-ambient-nat {
	chain istio-prerouting {
		meta l4proto tcp ip saddr 169.254.7.127 counter accept
		meta l4proto tcp ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff counter accept
		ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0x00000fff != 0x00000539 counter redirect to :15006
		ip6 daddr != ::1 tcp dport != 15008 meta mark & 0x00000fff != 0x00000539 counter redirect to :15006
	}

	chain istio-output {
		meta l4proto tcp ip daddr 169.254.7.127 counter accept
		oifname "lo" ip daddr != 127.0.0.1 counter accept
		meta l4proto tcp ip daddr != 127.0.0.1 meta mark & 0x00000fff != 0x00000539 counter redirect to :15001
		meta l4proto tcp ip6 daddr != ::1 meta mark & 0x00000fff != 0x00000539 counter redirect to :15001
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump istio-prerouting
	}

	chain output {
		type nat hook output priority -100; policy accept;
		jump istio-output
	}
}
table inet istio-ambient-mangle {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		meta mark & 0x00000fff == 0x00000539 counter ct mark set ct mark & 0xfffff111 | 0x00000111
	}
}
`;

const IPTABLES_NFT = `table ip nat {
	chain ISTIO_OUTPUT {
		meta l4proto tcp ip daddr != 127.0.0.1 meta mark & 0x00000fff != 0x00000539 counter redirect to :15001
	}

	chain ISTIO_PRERT {
		xt match "tcp" xt match "mark" counter xt target "REDIRECT"
	}

	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		counter jump ISTIO_OUTPUT
	}

	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		counter jump ISTIO_PRERT
	}
}
`;

const SAVED = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -d 169.254.7.127/32 -p tcp -m tcp -j ACCEPT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
-A ISTIO_PRERT ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
COMMIT
`;

function sorted(seen: readonly Redirected[]): string[] {
  return seen.map(({ direction, family }) => `${direction} ${family}`).toSorted();
}

const nft: readonly { readonly claim: string; readonly listing: string; readonly want: readonly string[] }[] = [
  {
    claim: 'native rules redirect both directions of both families',
    listing: NATIVE,
    want: ['inbound 4', 'inbound 6', 'outbound 4', 'outbound 6'],
  },
  {
    claim: 'rules of iptables on nftables count for their family, also when nft cannot read their target',
    listing: IPTABLES_NFT,
    want: ['inbound 4', 'outbound 4'],
  },
  {
    claim: 'a redirect that no hook leads to does not count',
    listing: NATIVE.replace('\t\tjump istio-output\n', ''),
    want: ['inbound 4', 'inbound 6'],
  },
  {
    claim: 'a hook of another kind than NAT does not count',
    listing: NATIVE.replaceAll('type nat hook', 'type filter hook'),
    want: [],
  },
  {
    claim: 'a redirect to another port is somebody else’s',
    listing: NATIVE.replaceAll(':15001', ':15002'),
    want: ['inbound 4', 'inbound 6'],
  },
  {
    claim: 'without the inbound rules, as in ingress mode, outbound is left',
    listing: NATIVE.replaceAll(/.*redirect to :15006\n/g, ''),
    want: ['outbound 4', 'outbound 6'],
  },
  { claim: 'no rules redirect nothing', listing: '', want: [] },
];

for (const { claim, listing, want } of nft) {
  test(claim, () => assert.deepEqual(sorted(seenByNft(listing)), want));
}

test('what iptables-save prints is read the same way', () => {
  assert.deepEqual(sorted(seenByIptables(SAVED, 4)), ['inbound 4', 'outbound 4']);
  assert.deepEqual(sorted(seenByIptables(SAVED.replace('-A OUTPUT -j ISTIO_OUTPUT\n', ''), 6)), ['inbound 6']);
});

test('chains that lead to each other in a circle end', () => {
  const circle = SAVED.replace('COMMIT', '-A ISTIO_OUTPUT -j ISTIO_PRERT\n-A ISTIO_PRERT -g ISTIO_OUTPUT\nCOMMIT');
  assert.deepEqual(sorted(seenByIptables(circle, 4)), ['inbound 4', 'outbound 4']);
});
