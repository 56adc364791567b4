/** Which connections may skip the tunnel, once the operator has accepted it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outboundDecision } from '../../../src/model/outbound-verdict.ts';
import type { SameNodeRoute } from '../../../src/model/verdict.ts';
import type { Service, Workload } from '../../../src/model/workload.ts';
import { always, atAddress, memberOf, mesh, SETTINGS, service, vip, workload } from './sample-mesh.ts';

const CLIENT = workload('client', { ips: ['10.0.0.1'] });
const ROUTE: SameNodeRoute = { podUid: 'pod-server', address: { ip: '10.0.0.2', port: 8_080 } };

interface Case {
  readonly name: string;
  readonly server?: Partial<Workload>;
  readonly web?: Partial<Service>;
  readonly clientIp?: string;
  readonly target?: string;
  /** Names of the pods that this agent has captured. */
  readonly captured?: readonly string[];
  readonly isOff?: true;
  readonly route: SameNodeRoute | undefined;
}

const table: readonly Case[] = [
  { name: 'a captured pod by its address', route: ROUTE },
  { name: 'a captured pod behind a service, at its own port', target: '10.1.0.1', route: ROUTE },
  { name: 'nobody while the operator has not accepted it', isOff: true, route: undefined },
  { name: 'no pod that this agent has not captured', captured: ['client'], route: undefined },
  { name: 'no pod that takes plaintext', server: { protocol: 'TCP' }, route: undefined },
  { name: 'no pod behind a waypoint', server: { waypoint: atAddress('10.0.0.9') }, route: undefined },
  {
    name: 'no pod behind a service with a waypoint, captured as that may be',
    target: '10.1.0.1',
    web: { waypoint: atAddress('10.0.0.9') },
    captured: ['client', 'server', 'waypoint'],
    route: undefined,
  },
  {
    name: 'the identity that the service demands',
    target: '10.1.0.1',
    web: { subjectAltNames: ['spiffe://cluster.local/ns/default/sa/server'] },
    route: ROUTE,
  },
  {
    name: 'no pod of another network',
    server: { network: 'other' },
    route: undefined,
  },
  { name: 'no client that calls from an address which is not the pod’s', clientIp: '10.0.0.3', route: undefined },
];

for (const {
  name,
  server,
  web,
  clientIp = '10.0.0.1',
  target,
  captured = ['client', 'server'],
  isOff,
  route,
} of table) {
  test(`the short cut leads to: ${name}`, () => {
    const index = mesh({
      workloads: [
        CLIENT,
        workload('server', { ips: ['10.0.0.2'], services: memberOf({ web: {} }), ...server }),
        workload('waypoint', { ips: ['10.0.0.9'] }),
      ],
      services: [service('web', { vips: [vip('10.1.0.1')], ...web })],
    });
    const to = target === undefined ? { ip: '10.0.0.2', port: 8_080 } : { ip: target, port: 80 };
    const question = { podUid: 'pod-client', client: { ip: clientIp, port: 40_000 }, target: to };
    const capturedPod = (record: Workload): string | undefined =>
      captured.includes(record.name) ? `pod-${record.name}` : undefined;
    const inputs = { settings: SETTINGS, random: always(0), ...(isOff ? {} : { capturedPod }) };
    const decision = outboundDecision(index, CLIENT, question, inputs);
    assert(decision.kind === 'verdict');
    assert.deepEqual('sameNode' in decision.verdict ? decision.verdict.sameNode : undefined, route);
  });
}
