/** Which pods are captured and who redirects them: told by a CNI agent over ZDS, listed in files, or the agent's own. */
import { join } from 'node:path';
import { CaptureJournal } from '../capture/capture-journal.ts';
import type { NetnsScope } from '../capture/netns-claims.ts';
import { ownPodSource } from '../capture/own-pod.ts';
import type { PodSource } from '../capture/pod-source.ts';
import type { RulesWriter } from '../capture/pods.ts';
import { createRedirection } from '../capture/redirect.ts';
import { createRedirectionCheck } from '../capture/redirect-check.ts';
import type { Exemption } from '../capture/redirect-rules.ts';
import { staticSource } from '../capture/static-source.ts';
import { zdsSource } from '../capture/zds-source.ts';
import type { ZdsMetrics } from '../telemetry/metrics-zds.ts';
import type { AgentDeps } from './agent.ts';
import type { AgentConfig } from './settings/config.ts';

/** Of everything the agent itself sends in dedicated mode; that of Istio's sidecar, which its rules exempt too. */
export const OWN_GID = 1337;

export interface PodSourceParts {
  readonly source: PodSource;
  readonly rules: RulesWriter;
  readonly scope?: NetnsScope;
  readonly exempt?: Exemption;
}

type Deps = Pick<AgentDeps, 'sys' | 'clock' | 'logs'>;

/** A CNI agent writes the redirection before it tells a pod; with files nobody else does. */
export function podSource(
  { podSource: from, runDir, ...config }: AgentConfig,
  { sys, clock, logs }: Deps,
  metrics: ZdsMetrics,
): PodSourceParts {
  const log = logs.scope('capture');
  switch (from.kind) {
    case 'zds': {
      const source = zdsSource(from.socket, { sys, clock, log, observer: metrics });
      return { source, rules: { kind: 'cni', check: createRedirectionCheck(sys) } };
    }
    case 'own': {
      const source = ownPodSource(from);
      if (from.redirection === 'none') return { source, rules: { kind: 'none' }, scope: 'any' };
      const exempt = { gid: OWN_GID, ports: [config.statsPort, config.readinessPort] };
      return { source, rules: { kind: 'agent', redirection: createRedirection(sys) }, scope: 'own', exempt };
    }
    case 'file': {
      const journal = new CaptureJournal(join(runDir, 'captured.json'), { sys, clock, log });
      const source = staticSource({ path: from.path, clock });
      return { source, rules: { kind: 'agent', redirection: createRedirection(sys), journal } };
    }
  }
}
