/** Runs `culvert …` in this process against an agent that answers from given data. */
import { HttpServer } from '../../../src/agent/admin/http-server.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { run } from '../../../src/cli/program.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly isTty?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** 2026-03-02T12:00:00Z. */
const NOW_MS = Date.UTC(2026, 2, 2, 12);

export async function culvert(argv: readonly string[], { isTty = false, env = {} }: RunOptions = {}): Promise<Ran> {
  let out = '';
  let err = '';
  const terminal = {
    env,
    isTty,
    out: (text: string) => void (out += text),
    err: (text: string) => void (err += text),
    nowMs: () => NOW_MS,
  };
  const code = await run(argv, { version: '9.8.7', terminal, roles: () => Promise.resolve([]) });
  return { code, out, err };
}

/** An agent whose paths answer with the given JSON; everything it was asked is recorded. */
export async function fakeAgent(answers: Readonly<Record<string, unknown>>) {
  const asked: string[] = [];
  const server = await HttpServer.listen({
    host: '127.0.0.1',
    port: 0,
    component: 'admin',
    clock: systemClock,
    log: silentLogger,
    handler: ({ method, path, query }) => {
      asked.push(`${method} ${path}${query.size === 0 ? '' : `?${query.toString()}`}`);
      const answer = answers[path];
      if (answer === undefined) return { status: 404 };
      const body = typeof answer === 'string' ? answer : JSON.stringify(answer);
      return { status: statusOf(body), body };
    },
  });
  return {
    asked,
    admin: `127.0.0.1:${server.port}`,
    ask: (argv: readonly string[], options?: RunOptions) =>
      culvert([...argv, '--admin', `127.0.0.1:${server.port}`], options),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

function statusOf(body: string): number {
  if (body.startsWith('Invalid')) return 400;
  return body.startsWith('{"error"') ? 404 : 200;
}

/** What an agent of two pods dumps. */
export const DUMP = {
  workloads: [
    {
      uid: 'w-shop',
      name: 'shop-1',
      namespace: 'retail',
      workloadIps: ['10.42.1.7', 'fd00::7'],
      node: 'n1',
      protocol: 'HBONE',
      status: 'Healthy',
      waypoint: { destination: 'retail/wp.retail.svc.cluster.local', hboneMtlsPort: 15_008 },
    },
    {
      uid: 'w-cart',
      name: 'cart-0',
      namespace: 'retail',
      workloadIps: ['10.42.2.9'],
      node: 'n2',
      protocol: 'HBONE',
      status: 'Unhealthy',
    },
    {
      uid: 'w-dns',
      name: 'dns',
      namespace: 'infra',
      workloadIps: [],
      hostname: 'dns.example',
      node: '',
      protocol: 'TCP',
      status: 'Healthy',
      waypoint: { destination: 'infra/gone', hboneMtlsPort: 15_008 },
    },
  ],
  services: [
    {
      name: 'cart',
      namespace: 'retail',
      hostname: 'cart.retail.svc.cluster.local',
      vips: ['/10.96.0.12'],
      ports: { 80: 8080 },
      endpoints: { 'w-cart': { workloadUid: 'w-cart' }, 'w-shop': { workloadUid: 'w-shop' } },
      waypoint: { destination: '/10.96.0.99', hboneMtlsPort: 15_008 },
    },
    {
      name: 'waypoint',
      namespace: 'retail',
      hostname: 'wp.retail.svc.cluster.local',
      vips: ['/10.96.0.99'],
      ports: {},
      endpoints: {},
    },
  ],
  policies: [
    { name: 'no-9999', namespace: 'retail', action: 'Deny', scope: 'Namespace', dryRun: false, rules: [] },
    { name: 'try', namespace: 'infra', action: 'Allow', scope: 'Global', dryRun: true, rules: [] },
    {
      name: 'odd',
      namespace: 'infra',
      action: 'Deny',
      scope: 'WorkloadSelector',
      dryRun: false,
      rules: [],
      rejected: 'port 70000 is over 65535',
    },
  ],
  certificates: [
    {
      identity: 'spiffe://cluster.local/ns/retail/sa/shop',
      state: 'Available',
      certChain: [
        {
          pem: 'x',
          serialNumber: '41390235',
          validFrom: '2026-03-02T07:58:00Z',
          expirationTime: '2026-03-03T08:00:00Z',
        },
        { pem: 'x', serialNumber: '255', validFrom: '2026-03-01T00:00:00Z', expirationTime: '2026-03-02T00:00:00Z' },
      ],
      rootCerts: [
        { pem: 'x', serialNumber: '1', validFrom: '2026-01-01T00:00:00Z', expirationTime: '2036-01-01T00:00:00Z' },
      ],
    },
    {
      identity: 'spiffe://cluster.local/ns/retail/sa/cart',
      state: 'Unavailable: the CA did not answer',
      certChain: [],
      rootCerts: [],
    },
  ],
} as const;
