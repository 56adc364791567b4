/** What the admin port shows, read from the running parts at the moment somebody asks. */
import { formatHostPort } from '../../base/ip.ts';
import { dumpMesh } from '../../model/dump.ts';
import { MeshIndex } from '../../model/mesh-index.ts';
import { rfc3339 } from '../../telemetry/timestamp.ts';
import type { AgentDeps, AgentParts } from '../agent.ts';
import { buildInfo } from '../build-info.ts';
import type { PodSourceSettings } from '../settings/pods.ts';
import { ThreadInspector } from '../thread-inspector.ts';
import type { AdminProviders } from './admin-server.ts';
import { certificatesView, identitiesView } from './certificate-views.ts';
import { configDump, workloadState } from './config-dump.ts';
import { configSection } from './config-dump-settings.ts';
import { staticConfig } from './static-config.ts';
import type { EnrolmentView, MeshView, PodView, StatusView } from './views.ts';
import { namedUsage } from './workload-usage.ts';

export function adminProviders(parts: AgentParts, deps: AgentDeps): AdminProviders {
  const inspector = new ThreadInspector();
  return {
    configDump: () => dump(parts, deps),
    status: () => status(parts, deps),
    certificates: () => identitiesView(parts),
    connections: () => parts.dataPlane.views.connections(),
    usage: async () => ({ workloads: await namedUsage(parts), atMs: deps.clock.monotonicMs() }),
    findConnection: (id) => parts.dataPlane.views.find(id),
    quit: async () => {
      deps.requestQuit();
      await parts.drained;
    },
    inspectors: () => new Map([['main', (call) => inspector.inspect(call)], ...parts.dataPlane.views.inspectors()]),
    logging: {
      current: () => deps.logs.current(),
      change: (directives, isReset) => {
        deps.logs.change(directives, isReset);
        // Decisions are logged when they are made: workers must ask for each again when they are to be seen.
        parts.authority.generation.advance();
        parts.dataPlane.setLogFilter(deps.logs.current());
      },
    },
  };
}

async function dump(parts: AgentParts, deps: AgentDeps): Promise<object> {
  const { open } = await parts.dataPlane.views.connections();
  const mesh = dumpMesh(parts.authority.index);
  return configDump({
    ...mesh,
    certificates: parts.certificates.snapshot(),
    config: configSection(parts.config),
    staticConfig: staticConfig(parts.config.localMesh, () => dumpMesh(fileIndex(parts))),
    version: buildInfo(deps.version, parts.config.metadata),
    workloadState: workloadState(podViews(parts), open),
  });
}

/** Without a control plane the file is the mesh. */
function fileIndex({ config: { xds }, authority, mesh }: AgentParts): MeshIndex {
  return xds === undefined ? authority.index : new MeshIndex(mesh.fileMesh);
}

async function status(parts: AgentParts, deps: AgentDeps): Promise<StatusView> {
  const { config, readiness, dataPlane } = parts;
  await dataPlane.views.settle();
  return {
    node: config.nodeName,
    version: deps.version,
    startedAt: rfc3339(parts.startedMs),
    uptimeSeconds: Math.round((deps.clock.wallMs() - parts.startedMs) / 1_000),
    isReady: readiness.isReady,
    pending: readiness.pending,
    listeners: listeners(parts),
    enrolment: enrolmentView(parts),
    pods: podViews(parts),
    mesh: meshView(parts),
    certificates: certificatesView(parts),
    connections: dataPlane.views.totals(),
    workers: dataPlane.views.threads(),
    handOver: handOverView(parts),
  };
}

function handOverView({ config: { holdMs, holdMemoryMib }, lease }: AgentParts): StatusView['handOver'] {
  const held = lease.predecessors.map(({ pid, build, connections, leftAtMs, endsAtMs }) => {
    return { pid, version: build, connections, since: rfc3339(leftAtMs), until: rfc3339(endsAtMs) };
  });
  return { holdMs, holdMemoryMib, held };
}

function enrolmentView({ config: { podSource }, pods }: AgentParts): EnrolmentView {
  const problem = pods.sourceProblem;
  return { source: enrolledBy(podSource), ...(problem !== undefined && { lastError: problem.message }) };
}

function enrolledBy(source: PodSourceSettings): string {
  switch (source.kind) {
    case 'zds':
      return `CNI agent at ${source.socket}`;
    case 'file':
      return `list in ${source.path}`;
    case 'own':
      return `settings: ${source.namespace}/${source.name} alone`;
  }
}

function podViews({ pods }: AgentParts): PodView[] {
  return pods.statuses().map(({ pod: { uid, name, namespace, serviceAccount }, ...rest }) => {
    return { uid, name, namespace, serviceAccount, ...rest };
  });
}

function listeners({ config }: AgentParts): StatusView['listeners'] {
  const any = config.isIpv6Enabled ? '::' : '0.0.0.0';
  return [
    { component: 'admin', address: formatHostPort({ ip: '127.0.0.1', port: config.adminPort }) },
    { component: 'stats', address: formatHostPort({ ip: any, port: config.statsPort }) },
    { component: 'readiness', address: formatHostPort({ ip: any, port: config.readinessPort }) },
  ];
}

function meshView({ mesh, authority }: AgentParts): MeshView {
  const { workloads, services, policies } = authority.index;
  return {
    ...mesh.view,
    workloads: workloads.size,
    services: services.size,
    policies: policies.accepted().length,
    rejectedPolicies: policies.rejected().length,
  };
}
