/** `culvert policies`: who may talk to whom (columns of `istioctl ztunnel-config policy`, and whether each is enforced). */
import type { Command } from 'commander';
import { inNamespace, type JsonObject, readMeshDump, textOf } from './mesh-dump.ts';
import type { Cell } from './table.ts';
import type { Terminal } from './terminal.ts';
import {
  type DumpViewOptions,
  dumpCommand,
  namespaceOption,
  printTable,
  type Table,
  withAlias,
} from './view-command.ts';

const EXAMPLES = `  $ culvert policies
  $ culvert policies --namespace shop --output yaml     (with the rules)
  $ culvert policies --file config_dump.json

A policy that could not be understood is Rejected: what it selects refuses all connections until it is repaired.`;

export function policiesCommand(terminal: Terminal): Command {
  const command = dumpCommand('policies', 'list the authorization policies in force', EXAMPLES)
    .aliases(['policy', 'pol', 'p'])
    .addOption(namespaceOption());
  withAlias(command, 'policy-namespace', 'namespace');
  return command.action(async (options: DumpViewOptions) => {
    const wanted = inNamespace((await readMeshDump(options, ['policies'])).policies, options.namespace);
    printTable(terminal, options.output, wanted, () => policyTable(wanted, options.namespace));
  });
}

export function policyTable(policies: readonly JsonObject[], namespace?: string): Table {
  return {
    header: ['NAMESPACE', 'POLICY NAME', 'ACTION', 'SCOPE', 'STATUS'],
    shortColumns: 4,
    rows: policies.map(row),
    whenEmpty:
      namespace === undefined
        ? 'No policies found: every connection is allowed.'
        : `No policies found in namespace ${namespace}; those of the whole mesh apply there too.`,
  };
}

function row(policy: JsonObject): readonly Cell[] {
  return [
    textOf(policy['namespace']),
    textOf(policy['name']),
    textOf(policy['action']),
    textOf(policy['scope']),
    statusCell(policy),
  ];
}

function statusCell(policy: JsonObject): Cell {
  const why = textOf(policy['rejected']);
  if (why !== '') return { text: `Rejected: ${why}`, colour: 'red' };
  return policy['dryRun'] === true ? { text: 'Dry run', colour: 'yellow' } : 'Enforced';
}
