/** What the log says before anything happens: build, limits and settings. */
import { readFileSync } from 'node:fs';
import type { RootLogger } from '../telemetry/logger.ts';
import { sortKeys } from './admin/config-dump.ts';
import { configSection } from './admin/config-dump-settings.ts';
import { buildInfo, buildInfoText } from './build-info.ts';
import type { AgentConfig } from './settings/config.ts';

export function reportStart(config: AgentConfig, version: string, logs: RootLogger): void {
  const log = logs.scope('agent');
  log.info?.(`version: ${buildInfoText(buildInfo(version, config.metadata))}`, {
    node: config.nodeName,
    pid: process.pid,
  });
  // Node has raised the soft limit to the hard one before any of our code ran.
  log.info?.(`file descriptor limit is ${fileDescriptorLimit()}`);
  log.info?.(`running with config: ${JSON.stringify(sortKeys(configSection(config)))}`);
  if (config.isShortCutAccepted) {
    log.info?.('same-node short cut is on: pods of this node talk in clear inside the agent, past every NetworkPolicy');
  }
  if (config.ignored.length > 0) log.info?.('settings without effect here', { names: config.ignored.join(' ') });
}

function fileDescriptorLimit(): string {
  return /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 'unknown';
}
