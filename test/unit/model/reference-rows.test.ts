/**
 * Which of our tests stands for which test of the reference (facts: datapath §7.3 and §7.5, control §8.5), for everything
 * that is decided as data. A row whose test is renamed or removed fails here.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

type Row = readonly [reference: string, claims: readonly string[]];

const TABLE: Readonly<Record<string, readonly Row[]>> = {
  'unit/wire/forwarded.test.ts': [
    ['proxy.rs test_parse_forwarded_host', ["is ${want ?? 'not there'}", 'host="web.local"', 'host=wéb']],
    [
      'outbound.rs build_forwarded',
      ['an IPv4 client is quoted with its port', 'an IPv6 client is bracketed inside the quotes'],
    ],
  ],
  'unit/wire/baggage.test.ts': [
    ['baggage.rs baggage_parser', ['all fields are written in the order ztunnel writes them']],
    ['baggage.rs baggage_parser_empty_values', ['an empty value counts as not said']],
    ['baggage.rs baggage_parser_multiline', ['several header lines are read as one']],
    ['baggage.rs baggage_parser_no_header', ['no header']],
    ['baggage.rs baggage_header_val_can_be_parsed', ['what is written reads back as it was']],
  ],
  'unit/model/inbound-target.test.ts': [
    [
      'inbound.rs test_find_inbound_upstream',
      [
        'the pod is reached by its own address and the port of the authority',
        'a service host name is mapped to the target port of the service',
        'a captured waypoint takes traffic for a workload attached to it by pod address',
        'a captured waypoint takes traffic for a workload attached to it by VIP',
        'a captured waypoint takes traffic for a service attached to it by service name',
        'an application tunnel with a port is dialled there, while policies see the port asked for',
        'the address of another pod refuses',
        'a captured waypoint refuses a workload attached to another one',
        'a captured waypoint of services refuses a workload that is not attached',
        'a captured waypoint of workloads refuses a service that is not attached',
      ],
    ],
    [
      'inbound.rs test_build_inbound_request',
      [
        'a PROXY tunnel is dialled on loopback and told the original pod address',
        'a PROXY tunnel is dialled on the pod address when loopback is switched off',
        'a PROXY tunnel asked for a host name is told the IPv4 VIP of the own network and the service port',
        'a PROXY tunnel asked for a host name without VIP refuses',
      ],
    ],
  ],
  'unit/model/verdicts.test.ts': [
    ['inbound.rs test_build_response_baggage_feature_gate', ['response baggage is answered only when enabled']],
    ['inbound.rs test_incoming_baggage_parsing_feature_gate', ['baggage is not believed when it is switched off']],
    [
      'connection_manager.rs test_policy_watcher_lifecycle (decision part)',
      ['a policy that now forbids a live connection closes it; one that does not leaves it'],
    ],
    [
      'state.rs assert_rbac_with_dest_workload_info',
      ['a connection is re-judged for the workload it came to, even when that is gone from the mesh'],
    ],
  ],
  'unit/model/next-hop.test.ts': [
    ['outbound.rs build_request_unknown_dest', ['an address nobody knows is passed through as dialled']],
    [
      'outbound.rs build_request_wrong_network',
      [
        'an endpoint with an address in another network and no gateway refuses',
        'a gateway nobody knows refuses and is named',
      ],
    ],
    [
      'outbound.rs build_request_double_hbone',
      [
        'a gateway given by address is dialled at that address and port',
        'a gateway given by host name is reached through its service, on the target port',
        'a waypoint in another network is reached through its gateway, and vouched for by its own service',
      ],
    ],
    [
      'outbound.rs build_request_failover_to_remote',
      [
        'with network failover a healthy local endpoint is used and the remote one is not',
        'with network failover and the local endpoint unhealthy the remote network is chosen',
      ],
    ],
    [
      'outbound.rs build_request_known_dest_remote_node_tcp, …_local_node_tcp',
      [
        'a workload without HBONE is reached in plaintext, with its name in the labels',
        'a workload without HBONE on the same node is reached the same way',
      ],
    ],
    [
      'outbound.rs build_request_known_dest_remote_node_hbone, …_local_node_hbone',
      [
        'an HBONE workload is reached on 15008 with its own address as authority',
        'an HBONE workload on the same node is not short-cut',
      ],
    ],
    ['outbound.rs build_request_source_waypoint', ['a waypoint of the source is ignored']],
    [
      'outbound.rs build_request_destination_waypoint',
      ['a workload with a waypoint is reached through it, the authority unchanged'],
    ],
    [
      'outbound.rs build_request_destination_waypoint_mismatch_ip',
      ['an IPv6 target behind a waypoint given by IPv4 is dialled over IPv4 with the IPv6 authority'],
    ],
    [
      'outbound.rs build_request_destination_svc_waypoint',
      ['the waypoint of a service wins before any endpoint is chosen'],
    ],
    ['outbound.rs build_request_empty_service', ['a service without endpoints refuses and is not passed through']],
    ['outbound.rs build_request_target_port', ['with a named port an endpoint that lacks the mapping is skipped']],
    [
      'outbound.rs build_request_host_network',
      [
        'a host-network pod chosen as endpoint is reached in plaintext with its own name',
        'a node address called directly is passed through without naming any of its pods',
      ],
    ],
    ['outbound.rs multiple_address_workload', ['a dual-stack workload is reached by the address that was dialled']],
    [
      'outbound.rs service_ip_families',
      [
        'an IPv6-only service never picks the IPv4 address of an endpoint',
        'an IPv4-only service never picks the IPv6 address of an endpoint',
        'a dual-stack service prefers the family of the request',
      ],
    ],
    [
      'outbound.rs build_request_passthrough_svc, build_request_passthrough_svc_with_waypoint',
      [
        'a passthrough service goes to the address dialled',
        'a passthrough service with a waypoint goes to the waypoint',
      ],
    ],
    [
      'state.rs test_sample_weighted_waypoint',
      [
        'weighted waypoints share connections in proportion to their weights',
        'weighted waypoints that are all zero fall back to the single waypoint',
      ],
    ],
    [
      'namespaced.rs sandwich_waypoint_proxy_protocol (decision part)',
      ['a waypoint service without ports serves through the application tunnel of its instance'],
    ],
    [
      'namespaced.rs service_waypoint_workload_hostname (decision part)',
      ['a waypoint name that is no service may be the host name of a workload'],
    ],
  ],
  'unit/model/load-balance.test.ts': [
    [
      'state.rs test_load_balance',
      [
        'without rules all endpoints are used',
        'failover prefers the most leading matches',
        'strict keeps only what matches every scope',
        'strict with no match has no endpoint',
        'the own network first outranks any other match',
        'an endpoint without address or name is skipped',
      ],
    ],
    [
      'state.rs find_upstream_port_mappings',
      [
        'the mapping of the endpoint wins',
        'else the target port of the service',
        'else, with an application tunnel, the service port itself',
        'else there is no endpoint',
      ],
    ],
  ],
  'unit/model/authz.test.ts': [
    ['rbac.rs rbac_empty_policy', ['an ALLOW without rules allows nobody', 'a DENY without rules denies nobody']],
    ['rbac.rs rbac_nesting', ['clauses of a rule are all required', 'one match of a clause is enough']],
    ['rbac.rs rbac_multi_rule', ['one rule of several is enough']],
    ['rbac.rs string_match', ["does not match'} ${JSON.stringify(text)}"]],
    [
      'rbac.rs one case per field',
      [
        'namespaces compare with the namespace of the identity',
        'notNamespaces excludes the listed one',
        'principals compare without the scheme',
        'notPrincipals presence means plaintext only',
        'service accounts ignore the trust domain',
        'notServiceAccounts excludes the account and lets plaintext in',
        'a source range matches the TCP peer',
        'notSourceIps excludes the range',
        'a destination range matches the pod address',
        'notDestinationIps excludes the pod address',
        'a destination port is the target port',
        'notDestinationPorts excludes the port',
      ],
    ],
    ['state.rs assert_rbac_logic_deny_allow', ['DENY beats ALLOW', 'one ALLOW of several is enough']],
    ['state.rs assert_rbac_dry_run_with_real_policies', ['dry-run policies never change a decision']],
  ],
  'unit/model/mesh-index.test.ts': [
    ['state/policy.rs rbac_change_scope', ['a policy whose scope changes leaves the namespace it governed']],
    [
      'state.rs lookup_address',
      ['an address that is both a VIP and a workload is the service; inside a range it is the workload'],
    ],
    [
      'state/service.rs shared_vip_different_namespaces',
      ['without a canonical one the first service of a shared VIP is taken'],
    ],
    [
      'state/service.rs namespace_visibility_vip, namespace_visibility_host',
      ['a namespace-visible service is hidden from others by VIP and by host name, not from askers without namespace'],
    ],
    [
      'state/service.rs visibility_filtered_exact_vip_falls_through_to_cidr, exact_match_priority_over_cidr_v4',
      ['an exact VIP comes before a range, and a hidden exact VIP falls through to the range'],
    ],
    [
      'state/service.rs cidr_match_v4, cidr_match_v6, longest_prefix_match_v4, longest_prefix_match_v6',
      [
        'an address in one range gets its service',
        'an IPv6 address matches IPv6 ranges',
        'the longest prefix wins, then the canonical one',
        'the longest IPv6 prefix wins',
      ],
    ],
    ['state/service.rs cidr_network_scoping', ['a range of another network matches nothing']],
    [
      'state/service.rs cidr_namespace_preferred_over_cidr_specificity',
      ['the own namespace wins over a longer prefix'],
    ],
    [
      'state/workload.rs overlapping_workload_ip',
      [
        'a pod with HBONE owns a shared address before anyone',
        'host-network workloads are never found by address, but by UID',
      ],
    ],
    [
      'state/workload.rs unhealthy_workloads, staged_services_cleanup',
      [
        'unhealthy endpoints take no traffic unless the service says so',
        'endpoints of a service that has not arrived are staged, and join it when it has',
      ],
    ],
    [
      'zt#979 local workload by what capture knows',
      ['a captured pod is known only when node, name, namespace and service account all agree'],
    ],
  ],
  'unit/model/dump.test.ts': [
    [
      'admin.rs test_dump_config (mesh part)',
      ['a workload dumps what is set and omits what is not', 'a service dumps its endpoints, waypoints and balancer'],
    ],
  ],
  'unit/xds/local-file.test.ts': [
    ['state/workload.rs local_client', ['the example of the format loads, defaults filled in']],
  ],
};

for (const [file, rows] of Object.entries(TABLE)) {
  const source = readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');
  for (const [reference, claims] of rows) {
    test(`${reference} has its counterpart in ${file}`, () => {
      for (const claim of claims) assert(source.includes(claim), `no test "${claim}"`);
    });
  }
}
